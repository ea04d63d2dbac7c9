"""GLM-4.7-Flash: its config, its plugin, latent attention and what is stored and not used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pio import ops
from pio.dtypes import DType, float32
from pio.errors import CheckpointError, PioError, UnsupportedModelError
from pio.layers.quantization import Quantization
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Inventory, Source
from pio.layers.workspace import Workspace
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.loading.weights import Weights
from pio.models.glm_4_7_flash.config import Glm4MoeLiteConfig
from pio.models.glm_4_7_flash.latent_attention import LatentSizes, MultiHeadLatentAttention
from pio.ops.quantized import PackedWeight, packed_shape
from pio.plugin import registry
from pio.plugin.loader import load
from pio.plugin.manifest import PluginManifest
from pio.plugin.quantizer import quantize
from pio.tensor import Tensor
from pio.testing.compare import assert_close
from pio.testing.plugin_case import PluginCase
from pio.testing.random_checkpoint import write_random_checkpoint
from pio.text.chat_template import ChatTemplate
from pio.text.reasoning import opens_reasoning

REAL = Path(__file__).parents[4] / ".." / "shared" / "checkpoints" / "glm-4.7-flash" / "config.json"
PUBLISHED: dict[str, Any] = {
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "pad_token_id": 154820,
    "eos_token_id": [154820, 154827, 154829],
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 10240,
    "max_position_embeddings": 202752,
    "model_type": "glm4_moe_lite",
    "moe_intermediate_size": 1536,
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "num_attention_heads": 20,
    "n_group": 1,
    "topk_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "routed_scaling_factor": 1.8,
    "num_experts_per_tok": 4,
    "first_k_dense_replace": 1,
    "num_hidden_layers": 47,
    "num_key_value_heads": 20,
    "num_nextn_predict_layers": 1,
    "partial_rotary_factor": 1.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "q_lora_rank": 768,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "vocab_size": 154880,
}
TINY: dict[str, Any] = {
    "model_type": "glm4_moe_lite",
    "vocab_size": 4099,
    "hidden_size": 40,
    "intermediate_size": 72,
    "moe_intermediate_size": 24,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "n_group": 3,
    "topk_group": 2,
    "num_experts_per_tok": 3,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.8,
    "first_k_dense_replace": 1,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "q_lora_rank": 28,
    "kv_lora_rank": 36,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 6,
    "v_head_dim": 20,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 160,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "dtype": "bfloat16",
    "eos_token_id": [2, 0],
}
KV_B = "model.layers.1.self_attn.kv_b_proj.weight"


class TestGlm47Flash(PluginCase):
    """Everything a plugin must do, on a tiny model with a dense layer before two sparse ones."""

    plugin = "glm_4_7_flash"
    config = TINY


class TestWithoutQueryLatent(PluginCase):
    """The same where queries are made of the residual stream, pairs lie apart, and every layer is sparse."""

    plugin = "glm_4_7_flash"
    config = {**TINY, "q_lora_rank": None, "rope_interleave": False, "mlp_layer_types": ["sparse"] * 3}


def manifest() -> PluginManifest:
    return registry.manifests()["glm_4_7_flash"]


def new_style() -> dict[str, Any]:
    """The published config as transformers 5 writes it."""
    gone = "rope_theta rope_scaling first_k_dense_replace n_routed_experts topk_method num_nextn_predict_layers".split()
    new = {name: value for name, value in PUBLISHED.items() if name not in gone}
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": 1000000, "partial_rotary_factor": 1.0}
    new |= {"num_local_experts": 64, "qk_head_dim": 256, "head_dim": 64, "rope_interleave": True}
    return new | {"mlp_layer_types": ["dense"] + ["sparse"] * 46}


def test_config_round_trip() -> None:
    config = Glm4MoeLiteConfig.from_checkpoint(PUBLISHED)
    assert Glm4MoeLiteConfig.model_validate_json(config.model_dump_json()) == config
    dumped = config.model_dump()
    kept = {name: value for name, value in PUBLISHED.items() if name in Glm4MoeLiteConfig.model_fields}
    assert {name: dumped[name] for name in kept} == kept and len(kept) >= 26
    assert config.rope["rope_theta"] == PUBLISHED["rope_theta"] and config.rope_interleave
    assert [i for i in range(47) if not config.sparse(i)] == [0]
    assert config.score_scale == 1 / 16


def test_new_style_config_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    new, old = (Glm4MoeLiteConfig.from_checkpoint(raw).model_dump() for raw in (new_style(), PUBLISHED))
    assert {**new, "rope": None} == {**old, "rope": None}
    assert caplog.messages == []


def test_absent_fields_are_those_of_the_published_model() -> None:
    few = {"model_type": "glm4_moe_lite", "rope_theta": 1000000, "eos_token_id": [154820, 154827, 154829]}
    few |= {"dtype": "bfloat16", "partial_rotary_factor": 1.0}
    assert Glm4MoeLiteConfig.from_checkpoint(few) == Glm4MoeLiteConfig.from_checkpoint(PUBLISHED)


@pytest.mark.skipif(not REAL.exists(), reason="needs the published config.json of GLM-4.7-Flash")
def test_the_published_config_is_the_one_tested() -> None:
    published = json.loads(REAL.read_text("utf-8"))
    assert {name: published[name] for name in PUBLISHED} == PUBLISHED
    assert Glm4MoeLiteConfig.from_checkpoint(published) == Glm4MoeLiteConfig.from_checkpoint(PUBLISHED)


def test_the_manifest_describes_the_published_model() -> None:
    found, config = manifest(), Glm4MoeLiteConfig.from_checkpoint(PUBLISHED)
    assert found.lists(PUBLISHED) and found.checkpoints == ("zai-org/GLM-4.7-Flash",)
    assert found.parameters == config.parameters == 29_943_393_920
    # with the embedding, which a token reads one row of
    assert config.active_parameters == 3_896_766_080
    assert found.memory_bytes > 2 * found.parameters


def test_a_step_reads_the_experts_that_were_chosen() -> None:
    config = Glm4MoeLiteConfig.from_checkpoint(PUBLISHED)
    assert config.expert_share(1) == pytest.approx(4 / 64)
    assert config.expert_share(2) == pytest.approx(4 / 64 + 4 / 64 * 60 / 64)
    assert config.last_feed_parameters == 2048 * 64 + 64 + 3 * 2048 * 1536 * 5
    assert config.attention_operations(10) == 47 * 20 * 10 * 2 * (512 + 64 + 512)


def test_operations_of_a_dense_last_layer() -> None:
    config = Glm4MoeLiteConfig.from_checkpoint({**PUBLISHED, "first_k_dense_replace": 47})
    assert config.last_feed_parameters == 3 * 2048 * 10240


@pytest.mark.parametrize(
    ("scaling", "factor"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "mscale": 1.4, "mscale_all_dim": 0.6}, 0.06 * math.log(4) + 1),
        ({"rope_type": "yarn", "factor": 4.0, "mscale": 1.4}, 1.0),
        ({"rope_type": "yarn", "factor": 0.5, "mscale_all_dim": 0.6}, 1.0),
        ({"rope_type": "default", "factor": 4.0, "mscale_all_dim": 0.6}, 1.0),
    ],
)
def test_yarn_sharpens_scores_too(scaling: dict[str, Any], factor: float) -> None:
    config = Glm4MoeLiteConfig.from_checkpoint({**PUBLISHED, "rope_scaling": scaling})
    assert config.score_scale == pytest.approx(factor**2 / 16, rel=1e-12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4, expected 20"),
        ({"head_dim": 128}, "head_dim is 128, expected 64"),
        ({"n_group": 5}, "n_routed_experts is 64, expected a multiple of n_group, 5"),
        ({"n_group": 64}, "two or more experts a group"),
        ({"topk_group": 2}, "topk_group is 2, expected at most n_group, 1"),
        ({"n_group": 32, "topk_group": 1}, "num_experts_per_tok is 4, expected at most 2"),
        ({"num_experts_per_tok": 65}, "num_experts_per_tok is 65, expected at most 64"),
        ({"mlp_layer_types": ["sparse"] * 46}, "mlp_layer_types has 46 entries, expected num_hidden_layers, 47"),
        ({"first_k_dense_replace": -1}, "first_k_dense_replace is -1, expected a whole number"),
        ({"first_k_dense_replace": True}, "first_k_dense_replace is True"),
        ({"qk_rope_head_dim": 63}, "head_dim is 63"),
        ({"kv_lora_rank": 0}, "kv_lora_rank is 0"),
        ({"kv_lora_rank": None}, "kv_lora_rank is None"),
        ({"q_lora_rank": "768"}, "q_lora_rank is '768', expected a whole number"),
        ({"norm_topk_prob": 1}, "norm_topk_prob is 1, expected true or false"),
        ({"num_hidden_layers": 1 << 40}, "num_hidden_layers is"),
        ({"num_hidden_layers": "47"}, "num_hidden_layers is '47'"),
    ],
)
def test_a_config_that_contradicts_itself(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Glm4MoeLiteConfig.from_checkpoint({**PUBLISHED, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"topk_method": "greedy"}, "topk_method is 'greedy'"),
        ({"scoring_func": "softmax"}, "scoring_func is 'softmax'"),
        ({"mlp_layer_types": ["dense"] * 46 + ["wide"]}, r"mlp_layer_types\.46 is 'wide'"),
        ({"sliding_window": 4096, "use_sliding_window": True}, "sliding_window is 4096"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ],
)
def test_a_config_that_asks_for_something_else(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        Glm4MoeLiteConfig.from_checkpoint({**PUBLISHED, **changed})


@pytest.mark.skipif(not REAL.exists(), reason="needs the published chat template of GLM-4.7-Flash")
def test_the_published_template_thinks_where_it_is_to() -> None:
    template = ChatTemplate.from_folder(REAL.parent)
    question = [{"role": "user", "content": "Hi"}]
    thinking = template.render(question)
    assert thinking == "[gMASK]<sop><|user|>Hi<|assistant|><think>" and opens_reasoning(thinking)
    at_once = template.render(question, enable_thinking=False)
    assert at_once == "[gMASK]<sop><|user|>Hi<|assistant|></think>" and not opens_reasoning(at_once)
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    assert '"name": "add"' in template.render(question, tools=[tool])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("glm") / "tiny", TINY, plugin="glm_4_7_flash")


def tensors(folder: Path) -> dict[str, Tensor]:
    file = SafetensorsFile(folder / "model.safetensors")
    return {name: file.tensor(name).clone() for name in file.names}  # Windows replaces no file that is mapped


def rewritten(tiny: Path, folder: Path, found: dict[str, Tensor], **changed: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**TINY, **changed}), "utf-8")
    write_safetensors(folder / "model.safetensors", {n: t.contiguous() for n, t in found.items()})
    return folder


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda t: t.pop("model.layers.2.mlp.experts.5.up_proj.weight"), r"model\.layers\.2\.mlp\.experts\.5\.up_proj"),
        (lambda t: t.update({"model.layers.1.mlp.gate.weight": t["model.layers.1.mlp.gate.weight"][:5]}), "mlp.gate"),
        (lambda t: t.pop("model.layers.1.mlp.gate.e_score_correction_bias"), "e_score_correction_bias"),
        (lambda t: t.update({KV_B: t[KV_B][:, :35]}), "kv_b_proj"),
        (lambda t: t.update({KV_B: t[KV_B][:159]}), r"kv_b_proj.weight' has shape \[159, 36\]"),
        (lambda t: t.update({KV_B: Tensor.zeros((160, 36), "uint8")}), "kv_b_proj"),
        (
            lambda t: t.update({"model.layers.0.mlp.experts.0.up_proj.weight": t["model.norm.weight"]}),
            r"layers\.0\.mlp",
        ),
    ],
    ids=[
        "an expert is missing",
        "the router knows fewer experts",
        "no correction of choices",
        "another rank",
        "a rank that does not divide",
        "latents' matrix is packed",
        "a dense layer has experts",
    ],
)
def test_tensors_that_contradict_the_config(tiny: Path, tmp_path: Path, spoil: Any, name: str) -> None:
    found = tensors(tiny)
    spoil(found)
    with pytest.raises(PioError, match=name), load(rewritten(tiny, tmp_path / "spoilt", found)):
        pass


def test_layers_for_further_tokens_are_skipped(tiny: Path, tmp_path: Path) -> None:
    found = tensors(tiny)
    found |= {f"model.layers.3.{name}": Tensor.zeros((5,)) for name in ("eh_proj.weight", "mlp.gate.weight")}
    folder = rewritten(tiny, tmp_path / "further", found, num_nextn_predict_layers=1)
    with load(folder) as model, load(tiny) as plain:
        assert model.loaded.weights.skipped == {"layers that predict further tokens": 2}
        assert model.logits([5, 3]).tolist() == plain.logits([5, 3]).tolist()
    found["model.layers.4.eh_proj.weight"] = Tensor.zeros((5,))
    with pytest.raises(CheckpointError, match="eh_proj"), load(rewritten(tiny, tmp_path / "two", found)):
        pass
    without = rewritten(tiny, tmp_path / "none", found, num_nextn_predict_layers=0)
    with pytest.raises(CheckpointError, match="3 of the"), load(without):
        pass


def test_quantize_leaves_layers_for_further_tokens_out(tiny: Path, tmp_path: Path) -> None:
    found = tensors(tiny) | {"model.layers.3.eh_proj.weight": Tensor.zeros((5, 3))}
    made = quantize(rewritten(tiny, tmp_path / "further", found), tmp_path / "made", plugin="glm_4_7_flash")
    assert not any(name.startswith("model.layers.3.") for name in tensors(made))


def attention(model: Any, layer: int = 1) -> MultiHeadLatentAttention:
    mixer = model.loaded.model.layers[layer].mixer
    assert isinstance(mixer, MultiHeadLatentAttention)
    return mixer


def test_heads_have_the_form_of_the_other_matrices(tiny: Path, tmp_path: Path) -> None:
    heads, key, value, rank = 5, 12, 20, 36
    with load(tiny) as model:
        found = attention(model)
        assert isinstance(found.to_latent, Tensor) and isinstance(found.to_value, Tensor)
        assert found.to_latent.dtype.name == found.to_value.dtype.name == "bfloat16"
        stored = tensors(tiny)[KV_B].astype("float32").reshape(heads, key + value, rank)
        assert found.to_latent.astype("float32").tolist() == stored[:, :key].transpose(0, 2, 1).contiguous().tolist()
        assert found.to_value.astype("float32").tolist() == stored[:, key:].contiguous().tolist()
    with load(tiny, dtype="float32") as model:
        found = attention(model)
        assert isinstance(found.to_latent, Tensor) and isinstance(found.to_value, Tensor)
        assert found.to_latent.dtype.name == found.to_value.dtype.name == "float32"
        assert model.metadata.memory["weights"] == 4 * sum(tensor.size for tensor in tensors(tiny).values())
    folder = quantize(tiny, tmp_path / "made", format="int8", plugin="glm_4_7_flash")
    assert tensors(folder)[KV_B].dtype.name == "bfloat16"
    with load(folder) as model:
        found = attention(model)
        assert isinstance(found.to_latent, PackedWeight) and isinstance(found.to_value, PackedWeight)
        assert (found.to_latent.shape, found.to_value.shape) == ((heads * 48, key), (heads * 32, rank))
        for weight, each, floats in (
            (found.to_latent, 48, stored[:, :key].transpose(0, 2, 1)),
            (found.to_value, 32, stored[:, key:]),
        ):
            unpacked = ops.unpack(weight).reshape(heads, each, -1)
            largest = max(abs(x) for head in floats.tolist() for row in head for x in row)
            assert_close(unpacked[:, : floats.shape[1]], floats.tolist(), absolute=largest / 200)
        wanted = math.prod(packed_shape((heads * 48, key), "int8")) + math.prod(
            packed_shape((heads * 32, rank), "int8")
        )
        weights = sum(tensor.nbytes for tensor in tensors(folder).values())
        wider = sum(tensor.nbytes for name, tensor in tensors(folder).items() if name.endswith("correction_bias"))
        assert model.metadata.memory["weights"] == weights + wider + 3 * (wanted - tensors(folder)[KV_B].nbytes)
        assert model.loaded.formats == {"layers": "int8", "tables": "int8"}


def test_the_cache_holds_latents_and_keys_alone(tiny: Path) -> None:
    with load(tiny, kv_cache_dtype="float32", cache_tokens=96) as model:
        assert model.loaded.cache.nbytes == 3 * 96 * (64 + 8) * 4  # 36 is kept as 64, 6 as 8
    with load(tiny, kv_cache_dtype="float16", cache_tokens=96) as model:
        assert model.loaded.cache.nbytes == 3 * 96 * (64 + 8) * 2


SIZES = LatentSizes(heads=5, query_rank=28, rank=36, key=12, rope=6, value=20)


def block(folder: Path, form: str | None = None, dtype: DType | None = None) -> tuple[Any, Inventory]:
    """The attention of one layer, made as a model makes it, and what it holds."""
    quantization = Quantization.of(form, "balanced")
    source = Source(Weights(folder), Workspace(1), dtype=dtype, quantization=quantization)
    rotary = RotaryEmbedding(source, {"rope_type": "default", "rope_theta": 10.0}, SIZES.rope)
    at = source / "model.layers.1.self_attn"
    made = MultiHeadLatentAttention(at, 1, SIZES, rotary, hidden=40, eps=1e-6, scale=0.2, interleaved=True)
    return made, source.inventory


def test_what_is_made_of_weights_counts(tiny: Path) -> None:
    asking, answering = 5 * 36 * 12, 5 * 36 * 20
    name = "model.layers.1.self_attn.kv_b_proj.weight"
    _, held = block(tiny)
    assert (held.nbytes[name], held.made[name]) == (2 * (asking + answering), 2 * asking)
    packed, held = block(tiny, "int4")
    assert held.made[name] == held.nbytes[name] == packed.to_latent.nbytes + packed.to_value.nbytes
    _, held = block(tiny, dtype=float32)
    assert held.made[name] == held.nbytes[name] == 4 * (asking + answering)


def test_a_matrix_that_is_no_number_cannot_be_packed(tiny: Path, tmp_path: Path) -> None:
    found = tensors(tiny)
    found[KV_B] = found[KV_B].clone().fill_(math.nan)
    folder = rewritten(tiny, tmp_path / "spoilt", found)
    with pytest.raises(CheckpointError, match=r"kv_b_proj.weight' cannot be quantized"), load(folder, quantize="int8"):
        pass
