"""Qwen3-Coder-30B-A3B-Instruct: its config, its plugin and what a mixture of experts adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pio.errors import CheckpointError, PioError
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.models.qwen3_coder_30b_a3b_instruct.config import Qwen3MoeConfig
from pio.plugin import registry
from pio.plugin.loader import load
from pio.plugin.manifest import PluginManifest
from pio.testing.plugin_case import PluginCase
from pio.testing.random_checkpoint import write_random_checkpoint

REAL = Path(__file__).parents[4] / ".." / "shared" / "checkpoints" / "qwen3-coder-30b-a3b-instruct" / "config.json"
PUBLISHED: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 262144,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
TINY: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 4099,
    "hidden_size": 40,
    "intermediate_size": 72,
    "moe_intermediate_size": 24,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "norm_topk_prob": True,
    "mlp_only_layers": [1],
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 160,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "eos_token_id": [2, 0],
}


class TestQwen3Coder30BA3BInstruct(PluginCase):
    """Everything a plugin must do, on a tiny model with a dense layer between two sparse ones."""

    plugin = "qwen3_coder_30b_a3b_instruct"
    config = TINY


def manifest() -> PluginManifest:
    return registry.manifests()["qwen3_coder_30b_a3b_instruct"]


def test_config_round_trip() -> None:
    config = Qwen3MoeConfig.from_checkpoint(PUBLISHED)
    assert Qwen3MoeConfig.model_validate_json(config.model_dump_json()) == config
    dumped = config.model_dump()
    kept = {name: value for name, value in PUBLISHED.items() if name in Qwen3MoeConfig.model_fields}
    assert {name: dumped[name] for name in kept} == {**kept, "mlp_only_layers": ()} and len(kept) >= 18
    assert config.rope["rope_theta"] == PUBLISHED["rope_theta"]
    assert all(map(config.sparse, range(48)))


def test_new_style_config_is_the_same() -> None:
    new = {k: v for k, v in PUBLISHED.items() if k not in ("rope_theta", "rope_scaling", "torch_dtype")}
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": PUBLISHED["rope_theta"]}
    new["dtype"] = "bfloat16"
    assert Qwen3MoeConfig.from_checkpoint(new) == Qwen3MoeConfig.from_checkpoint(PUBLISHED)


@pytest.mark.skipif(not REAL.exists(), reason="needs the published config.json of Qwen3-Coder-30B-A3B-Instruct")
def test_the_published_config_is_the_one_tested() -> None:
    published = json.loads(REAL.read_text("utf-8"))
    assert {name: published[name] for name in PUBLISHED} == PUBLISHED
    assert Qwen3MoeConfig.from_checkpoint(published) == Qwen3MoeConfig.from_checkpoint(PUBLISHED)


def test_the_manifest_describes_the_published_model() -> None:
    found, config = manifest(), Qwen3MoeConfig.from_checkpoint(PUBLISHED)
    assert found.lists(PUBLISHED) and found.checkpoints == ("Qwen/Qwen3-Coder-30B-A3B-Instruct",)
    assert found.parameters == config.parameters == 30_532_122_624
    # published: 3.35 billion with the embedding, which a token reads one row of
    assert config.active_parameters == 3_353_032_704
    assert found.memory_bytes > 2 * found.parameters


def test_a_step_reads_the_experts_that_were_chosen() -> None:
    config = Qwen3MoeConfig.from_checkpoint(PUBLISHED)
    assert config.expert_share(1) == pytest.approx(8 / 128)
    assert config.expert_share(2) == pytest.approx(8 / 128 + 8 / 128 * 120 / 128)


def test_what_a_token_computes() -> None:
    config, width = Qwen3MoeConfig.from_checkpoint(PUBLISHED), 2048
    assert config.last_feed_parameters == 128 * width + 8 * 3 * 768 * width
    dense = Qwen3MoeConfig.from_checkpoint({**PUBLISHED, "mlp_only_layers": [47]})
    assert dense.last_feed_parameters == 3 * 6144 * width
    assert config.attention_operations(10) == 48 * 32 * (2 * 128 + 2 * 128) * 10


def test_which_layers_are_sparse() -> None:
    config = Qwen3MoeConfig.from_checkpoint({**PUBLISHED, "decoder_sparse_step": 2, "mlp_only_layers": [3]})
    assert [i for i in range(8) if config.sparse(i)] == [1, 5, 7]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_experts_per_tok": 129}, "num_experts_per_tok is 129, expected at most num_experts, 128"),
        ({"mlp_only_layers": 0}, "mlp_only_layers is 0, expected a list"),
        ({"mlp_only_layers": False}, "mlp_only_layers is False, expected a list"),
        ({"mlp_only_layers": ""}, "mlp_only_layers is '', expected a list"),
        ({"mlp_only_layers": [48]}, "mlp_only_layers has layer 48, expected 0 to 47"),
        ({"num_experts": 0}, "num_experts is 0"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
        ({"norm_topk_prob": 1}, "norm_topk_prob is 1, expected true or false"),
    ],
)
def test_a_config_that_contradicts_itself(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Qwen3MoeConfig.from_checkpoint({**PUBLISHED, **changed})


def tensors(folder: Path) -> dict[str, Any]:
    file = SafetensorsFile(folder / "model.safetensors")
    return {name: file.tensor(name).clone() for name in file.names}  # Windows replaces no file that is mapped


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda t: t.pop("model.layers.2.mlp.experts.5.up_proj.weight"), r"model\.layers\.2\.mlp\.experts\.5\.up_proj"),
        (lambda t: t.update({"model.layers.0.mlp.gate.weight": t["model.layers.0.mlp.gate.weight"][:6]}), "mlp.gate"),
        (
            lambda t: t.update({"model.layers.1.mlp.experts.0.up_proj.weight": t["model.norm.weight"]}),
            r"model\.layers\.1\.mlp\.experts\.0",
        ),
    ],
    ids=["an expert is missing", "the router knows fewer experts", "a dense layer has experts"],
)
def test_tensors_that_contradict_the_config(tmp_path: Path, spoil: Any, name: str) -> None:
    folder = write_random_checkpoint(tmp_path / "tiny", TINY, plugin="qwen3_coder_30b_a3b_instruct")
    found = tensors(folder)
    spoil(found)
    write_safetensors(folder / "model.safetensors", {n: t.contiguous() for n, t in found.items()})
    with pytest.raises(PioError, match=name), load(folder):
        pass
