"""Qwen3-Coder-Next: its config, its plugin, and what a recurrent layer adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pio.cache.protocol import tentative_tokens
from pio.cache.recurrent import RecurrentStates
from pio.cache.windows import TOKENS
from pio.dtypes import float32
from pio.errors import CheckpointError, PioError, UnsupportedModelError
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.loading.weights import Weights
from pio.models.qwen3_coder_next.config import Qwen3NextConfig
from pio.models.qwen3_coder_next.gated_delta_net import DeltaShape, GatedDeltaNet
from pio.plugin import registry
from pio.plugin.loader import load
from pio.plugin.manifest import PluginManifest
from pio.tensor import Tensor
from pio.testing.check_commits import check_commits
from pio.testing.plugin_case import PluginCase
from pio.testing.random_checkpoint import write_random_checkpoint

REAL = Path(__file__).parents[4] / ".." / "shared" / "checkpoints" / "qwen3-coder-next" / "config.json"
PUBLISHED: dict[str, Any] = {
    "architectures": ["Qwen3NextForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262144,
    "mlp_only_layers": [],
    "model_type": "qwen3_next",
    "moe_intermediate_size": 512,
    "norm_topk_prob": True,
    "num_attention_heads": 16,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.25,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 5000000,
    "shared_expert_intermediate_size": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
TINY: dict[str, Any] = {
    "model_type": "qwen3_next",
    "vocab_size": 4099,
    "hidden_size": 40,
    "intermediate_size": 72,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 28,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "norm_topk_prob": True,
    "mlp_only_layers": [1],
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 20,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 160,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "eos_token_id": [2, 0],
}


class TestQwen3CoderNext(PluginCase):
    """Everything a plugin must do, on a tiny model: attention and a dense block between recurrent, sparse layers."""

    plugin = "qwen3_coder_next"
    config = TINY


def manifest() -> PluginManifest:
    return registry.manifests()["qwen3_coder_next"]


def test_config_round_trip() -> None:
    config = Qwen3NextConfig.from_checkpoint(PUBLISHED)
    assert Qwen3NextConfig.model_validate_json(config.model_dump_json()) == config
    dumped = config.model_dump()
    kept = {name: value for name, value in PUBLISHED.items() if name in Qwen3NextConfig.model_fields}
    assert {name: dumped[name] for name in kept} == {**kept, "mlp_only_layers": ()} and len(kept) >= 22
    assert config.rope["rope_theta"] == PUBLISHED["rope_theta"] and config.rotary_dim == 64
    assert all(map(config.sparse, range(48)))
    assert [i for i in range(48) if config.attends(i)] == list(range(3, 48, 4))


def test_new_style_config_is_the_same() -> None:
    old = ("rope_theta", "rope_scaling", "torch_dtype", "partial_rotary_factor", "full_attention_interval")
    new = {k: v for k, v in PUBLISHED.items() if k not in old}
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": 5000000, "partial_rotary_factor": 0.25}
    new["layer_types"] = ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(48)]
    new["dtype"] = "bfloat16"
    assert Qwen3NextConfig.from_checkpoint(new) == Qwen3NextConfig.from_checkpoint(PUBLISHED)


@pytest.mark.skipif(not REAL.exists(), reason="needs the published config.json of Qwen3-Coder-Next")
def test_the_published_config_is_the_one_tested() -> None:
    published = json.loads(REAL.read_text("utf-8"))
    assert {name: published[name] for name in PUBLISHED} == PUBLISHED
    assert Qwen3NextConfig.from_checkpoint(published) == Qwen3NextConfig.from_checkpoint(PUBLISHED)


def test_the_manifest_describes_the_published_model() -> None:
    found, config = manifest(), Qwen3NextConfig.from_checkpoint(PUBLISHED)
    assert found.lists(PUBLISHED) and found.checkpoints == ("Qwen/Qwen3-Coder-Next",)
    assert found.parameters == config.parameters == 79_674_391_296
    assert config.active_parameters == 3_874_929_408  # with the embedding, of which a token reads one row
    assert found.memory_bytes > 2 * found.parameters


def test_a_step_reads_the_experts_that_were_chosen() -> None:
    config = Qwen3NextConfig.from_checkpoint(PUBLISHED)
    assert config.expert_share(1) == pytest.approx(10 / 512)
    assert config.expert_share(2) == pytest.approx(10 / 512 + 10 / 512 * 502 / 512)


def test_what_a_token_computes() -> None:
    config, width = Qwen3NextConfig.from_checkpoint(PUBLISHED), 2048
    router, gate, expert = 512 * width, width, 3 * 512 * width
    assert config.last_feed_parameters == router + gate + 11 * expert  # ten of the experts, and the shared one
    dense = Qwen3NextConfig.from_checkpoint({**PUBLISHED, "mlp_only_layers": [47]})
    assert dense.last_feed_parameters == 3 * 5120 * width
    scores_and_sums = 16 * (2 * 256 + 2 * 256) * 10  # a multiplication and an addition each
    state = 32 * 128 * 128 * (1 + 2 + 2 + 2)  # forgotten, read with the key, corrected, read with the query
    assert config.attention_operations(10) == 12 * scores_and_sums + 36 * state


def test_what_a_sequence_keeps() -> None:
    shape = DeltaShape(key_heads=16, heads=32, dim=128, value_dim=128, width=4)
    layer = 4 * (3 * (2 * 16 * 128 + 32 * 128) + 32 * 128 * 128)
    assert RecurrentStates(1, 1, shape.states).nbytes == layer == 2_195_456
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert f"keeps {layer / 1e6:.1f} MB of state for each recurrent layer, {36 * layer / 1e6:.0f} MB in all" in readme
    made = RecurrentStates(36, 1, shape.states, tentative_tokens=TOKENS, key_heads=shape.key_heads)
    assert made.nbytes == 36 * layer
    each = 36 * 4 * (shape.channels + shape.values + shape.keys + shape.heads)
    room = TOKENS * each + 36 * 4 * 3 * shape.channels
    assert made.window_bytes == room + made.layer(0)[2].desks.nbytes
    assert f"room for {TOKENS} tokens" in readme
    assert f"{each / 1e6:.1f} MB each, {room / 1e6:.0f} MB in all" in readme


def test_states_without_room_for_drafts_give_the_same_answer(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "tiny", TINY, plugin="qwen3_coder_next")
    found: list[tuple[Any, int]] = []
    for speculation in ("auto", "off"):
        with load(folder, speculation=speculation) as model:
            answer = model.generate([5, 6, 7], max_new_tokens=9, temperature=0.0, ignore_eos=True, logprobs=3)
            found.append(((answer.token_ids, answer.logprobs), tentative_tokens(model.loaded.cache)))
            assert check_commits(model) == []
    assert found == [(found[0][0], TOKENS), (found[0][0], 0)]


def test_copies_of_stored_tensors_count(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "tiny", TINY, plugin="qwen3_coder_next")
    gates, taps = 2 * 4 * 40, 3 * (2 * 2 * 12 + 4 * 20)
    for dtype, itemsize in ((None, 2), (float32, 4)):
        shape = DeltaShape(key_heads=2, heads=4, dim=12, value_dim=20, width=3)
        source = Source(Weights(folder), Workspace(1), dtype=dtype) / "model.layers.2.linear_attn"
        net = GatedDeltaNet(source, 2, shape, hidden=40, eps=1e-6)
        copies = net.in_proj_ba.nbytes + net.conv1d.nbytes
        assert copies == itemsize * (gates + taps)
        converted = (
            0 if dtype is None else net.in_proj_qkvz.weight.nbytes + net.out_proj.weight.nbytes + 4 * (20 + 4 + 4)
        )
        exact = 4 * (4 + 4)  # always float32
        assert sum(source.inventory.made.values()) == copies + converted + (exact if dtype is None else 0)
        stored = {name: t for name, t in tensors(folder).items() if name.startswith(source.prefix)}
        assert sum(source.inventory.nbytes.values()) == (
            itemsize * sum(tensor.size for tensor in stored.values()) + (exact // 2 if dtype is None else 0)
        )


def test_which_layers_are_sparse() -> None:
    config = Qwen3NextConfig.from_checkpoint({**PUBLISHED, "decoder_sparse_step": 2, "mlp_only_layers": [3]})
    assert [i for i in range(8) if config.sparse(i)] == [1, 5, 7]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_experts_per_tok": 513}, "num_experts_per_tok is 513, expected at most num_experts, 512"),
        ({"linear_num_value_heads": 40}, "linear_num_value_heads is 40, expected a multiple of linear_num_key_heads"),
        ({"linear_conv_kernel_dim": 9}, "linear_conv_kernel_dim is 9"),
        ({"full_attention_interval": 0}, "full_attention_interval is 0"),
        ({"full_attention_interval": 49}, "layer_types has no full_attention"),
        ({"partial_rotary_factor": 0.001}, "partial_rotary_factor turns 0 of head_dim 256"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries"),
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
        Qwen3NextConfig.from_checkpoint({**PUBLISHED, **changed})


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
    folder = write_random_checkpoint(tmp_path / "tiny", TINY, plugin="qwen3_coder_next")
    found = tensors(folder)
    spoil(found)
    write_safetensors(folder / "model.safetensors", {n: t.contiguous() for n, t in found.items()})
    with pytest.raises(PioError, match=name), load(folder):
        pass


def test_a_kind_of_layer_that_it_has_not() -> None:
    kinds = ["sliding_attention", *["full_attention"] * 47]
    with pytest.raises(UnsupportedModelError, match="layer_types has sliding_attention, this architecture has full"):
        Qwen3NextConfig.from_checkpoint({**PUBLISHED, "layer_types": kinds})


def test_heads_that_predict_further_tokens_are_skipped_knowingly(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "tiny", TINY, plugin="qwen3_coder_next")
    found = tensors(folder)
    with load(folder) as model:
        expected = model.generate([5, 6, 7], max_new_tokens=5, temperature=0.0).token_ids
    found["mtp.layers.0.mlp.experts.0.up_proj.weight"] = Tensor.zeros((3, 5))
    write_safetensors(folder / "model.safetensors", {n: t.contiguous() for n, t in found.items()})
    with load(folder) as model:
        assert model.generate([5, 6, 7], max_new_tokens=5, temperature=0.0).token_ids == expected


def test_more_requests_than_states_wait_and_stay_what_they_are(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "tiny", TINY, plugin="qwen3_coder_next")
    asked = [[5 + i, 17, 300 + 7 * i, *range(40, 40 + 3 * i)] for i in range(7)]
    fields: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0.0, "ignore_eos": True}
    with load(folder) as model:
        alone = [model.generate(ids, **fields).token_ids for ids in asked]
    with load(folder, max_batch_sequences=3, prefill_chunk=5) as model:
        assert [answer.token_ids for answer in model.infer_batch(asked, **fields)] == alone
        assert model.loaded.cache.state_bytes > 0


@pytest.mark.parametrize("kept", [4, 13])
def test_twenty_turns_with_a_tool_compute_what_is_new(tmp_path: Path, kept: int) -> None:
    """What is new begins where the template's text goes another way than prompt and answer of the turn before."""
    config = {**TINY, "max_position_embeddings": 4096}
    folder = write_random_checkpoint(tmp_path / "tiny", config, plugin="qwen3_coder_next")
    with load(folder) as model:
        one = model.loaded.cache.state_bytes
    system = {"role": "system", "content": "You add numbers with a tool. " * 60}
    with load(folder, prefix_cache=kept * one, cache_tokens=4096) as model:
        messages: list[dict[str, Any]] = [system]
        before: list[int] = []
        for turn in range(20):
            role = "tool" if turn % 3 else "user"
            messages.append({"role": role, "content": f"{turn} and {turn * turn} and so on, {turn} times."})
            ids = list(model.loaded.prompts.encode(messages).token_ids)
            same = next((i for i, pair in enumerate(zip(ids, before, strict=False)) if pair[0] != pair[1]), len(before))
            answer = model.generate(messages, max_new_tokens=30, seed=turn, ignore_eos=True)
            assert answer.usage.prompt_tokens - answer.usage.cached_tokens <= len(ids) - same + 64
            messages.append({"role": "assistant", "content": answer.text})
            before = [*ids, *answer.token_ids][:-1]  # the last one was never in the cache
            assert model.stats().kept_states <= kept
        cold = model.generate(messages[:-1], max_new_tokens=30, seed=turn, ignore_eos=True, cache_salt="cold")
        assert cold.token_ids == answer.token_ids and cold.usage.cached_tokens == 0 < answer.usage.cached_tokens
        other = [system, {"role": "user", "content": "Something else."}]
        first = len(model.loaded.prompts.encode([system]).token_ids)
        if kept > 4:  # other conversations find what they share, and four are too few for that
            assert model.generate(other, max_new_tokens=3).usage.cached_tokens >= (first - 10) // 32 * 32 > 32


def test_a_conversation_goes_on_from_the_states_behind_its_answers(tmp_path: Path) -> None:
    """Random tokens, as no tokenizer would choose them: with the text alone all of it would be read again."""
    folder = write_random_checkpoint(
        tmp_path / "tiny", {**TINY, "max_position_embeddings": 2048}, plugin=manifest().name
    )
    fields: dict[str, Any] = {"max_new_tokens": 70, "ignore_eos": True, "suppress_tokens": list(range(12))}
    with load(folder, progress=False) as model, load(folder, progress=False, prefix_cache=False) as cold:
        fields["suppress_tokens"] += [model.metadata.vocab_size - n for n in (1, 2, 3)]  # which have no text
        messages: list[Any] = [{"role": "user", "content": "Where is it, and what else is there besides?"}]
        known = 0
        for turn in range(8):
            result = model.generate(messages, seed=turn, **fields)
            assert result.token_ids == cold.generate(messages, seed=turn, **fields).token_ids
            assert known - result.usage.cached_tokens <= 64
            known = result.usage.prompt_tokens + result.usage.completion_tokens
            text = [*messages, {"role": "assistant", "content": result.text}, {"role": "user", "content": "And?"}]
            messages = [*messages, result.message, {"role": "user", "content": "And?"}]
        assert known > 8 * 70
        found = model.generate(text, max_new_tokens=1).usage
        assert found.cached_tokens <= found.prompt_tokens - 70, "and the text of the last answer alone is not found"
