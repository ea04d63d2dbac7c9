"""Tiny random checkpoints with experts answer as transformers does; README.md here says how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden_case import (
    NEW_TOKENS,
    PROFILES,
    answers,
    config_of,
    greedy,
    greedy_together,
    logits_bytes,
    logits_errors,
    longest_prompt,
    prompts_of_all_lengths,
    tolerance,
)

HERE = Path(__file__).parent
ARCHITECTURES = ("qwen3_moe", "qwen3_next", "glm4_moe_lite")
CASES = [f"{a}/{folder.name}" for a in ARCHITECTURES for folder in sorted((HERE / a).iterdir())]
# relative L2 of the logits; the prompts of bfloat16 folders were chosen so that rounding moves no row by more than 3 %
TOLERANCE_FLOAT32, TOLERANCE_ROUNDED = 1e-4, 3e-2


def load(case: str, **options: Any) -> Any:
    import pio
    from pio.registry import manifests

    architecture = case.partition("/")[0]
    if not any(architecture in manifest.model_types for manifest in manifests().values()):
        pytest.skip(f"no plugin runs {architecture}")
    return pio.load(HERE / case, **options)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_logits(case: str, profile: str) -> None:
    with load(case, profile=profile) as model:
        errors = logits_errors(model, HERE / case)
    limit = tolerance(HERE / case, profile, TOLERANCE_FLOAT32, TOLERANCE_ROUNDED)
    assert all(error < limit for error in errors.values()), f"by prompt length: {errors}"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens(case: str, profile: str) -> None:
    with load(case, profile=profile) as model:
        for prompt in answers(HERE / case)["prompts"]:
            assert list(greedy(model, prompt["ids"]).token_ids) == prompt["greedy"], f"{len(prompt['ids'])} tokens"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_chunked_prefill_is_bit_identical(case: str, profile: str) -> None:
    """Token by token, in chunks that fit no block, and whole: the same bits."""
    ids = longest_prompt(HERE / case)
    found = {}
    for chunk in (1, 7, 64, 512):
        with load(case, profile=profile, prefill_chunk=chunk) as model:
            found[chunk] = logits_bytes(model, ids)
    assert len(found[512]) == 4 * len(ids) * config_of(HERE / case)["vocab_size"]
    assert [chunk for chunk, data in found.items() if data != found[512]] == []


@pytest.mark.parametrize("profile", ["balanced", "performance"])
@pytest.mark.parametrize("case", CASES)
def test_later_tokens_change_nothing(case: str, profile: str) -> None:
    """The logits of a prefix are the first rows of the logits of the whole, bit for bit."""
    ids = longest_prompt(HERE / case)
    row = 4 * config_of(HERE / case)["vocab_size"]
    with load(case, profile=profile) as model:
        whole = logits_bytes(model, ids)
        for length in (1, 2, 15, 16, 17, len(ids) - 1):
            assert logits_bytes(model, ids[:length]) == whole[: length * row], f"prefix of {length}"


@pytest.mark.parametrize(
    ("threads", "profile"), [(1, "balanced"), (2, "balanced"), (2, "performance")], ids=lambda value: str(value)
)
@pytest.mark.parametrize("case", CASES)
def test_a_batch_equals_its_members(case: str, threads: int, profile: str) -> None:
    """Answers and log-probabilities, which are float for float those of each prompt on its own."""
    prompts = prompts_of_all_lengths(HERE / case)
    with load(case, threads=threads, profile=profile) as model:
        alone = [greedy(model, ids, logprobs=3) for ids in prompts]
        together = greedy_together(model, prompts, logprobs=3)
    assert [r.token_ids for r in together] == [r.token_ids for r in alone]
    assert [r.logprobs for r in together] == [r.logprobs for r in alone]
    assert all(r.logprobs for r in alone)


@pytest.mark.parametrize("profile", ["balanced", "performance"])
@pytest.mark.parametrize(
    "case",
    ["qwen3_moe/sparse_step2_tied_sharded_bf16", "qwen3_next/heads3x_sharded_bf16", "glm4_moe_lite/as_published"],
)
def test_thread_count_changes_no_bit(case: str, profile: str) -> None:
    ids = longest_prompt(HERE / case)
    found = set()
    for threads in (1, 2, 3):
        with load(case, threads=threads, profile=profile) as model:
            found.add(logits_bytes(model, ids))
    assert len(found) == 1


def names(folder: Path) -> set[str]:
    """Of the stored tensors, from the headers of the files."""
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        found |= set(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])) - {"__metadata__"}
    return found


def configs(architecture: str) -> list[dict[str, Any]]:
    return [config_of(folder) for folder in sorted((HERE / architecture).iterdir())]


def test_the_fixtures_are_small_and_decide() -> None:
    assert sum(f.stat().st_size for a in ARCHITECTURES for f in (HERE / a).rglob("*") if f.is_file()) < 6_000_000
    for case in CASES:
        for prompt in answers(HERE / case)["prompts"]:
            assert len(prompt["greedy"]) == len(prompt["margins"]) == NEW_TOKENS
            assert prompt["smallest_margin"] == min(prompt["margins"]) > 0.02
            assert prompt["smallest_router_margin"] > 0.009


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_fixtures_cover_what_all_share(architecture: str) -> None:
    found = configs(architecture)
    ropes = [c.get("rope_parameters") or c.get("rope_scaling") or {} for c in found]
    experts = [c.get("num_experts") or c.get("num_local_experts") or c["n_routed_experts"] for c in found]
    assert len(found) >= 3
    assert {c.get("tie_word_embeddings", False) for c in found} == {True, False}
    assert {c.get("dtype") or c.get("torch_dtype") for c in found} == {"float32", "float16", "bfloat16"}
    assert {"rope_parameters" in c for c in found} == {True, False}
    assert any(r.get("rope_type") == "yarn" for r in ropes)
    assert any(n & (n - 1) for n in experts)
    assert any((HERE / architecture).glob("*/*.index.json"))
    for folder in (HERE / architecture).iterdir():
        assert any(name.endswith("mlp.experts.0.gate_proj.weight") for name in names(folder))
        assert not any(name.endswith("experts.gate_up_proj") for name in names(folder))
    lengths = {len(p["ids"]) for folder in (HERE / architecture).iterdir() for p in answers(folder)["prompts"]}
    assert lengths >= {1, 2, 300}


def test_the_fixtures_cover_qwen3_moe() -> None:
    found = configs("qwen3_moe")
    assert {c.get("norm_topk_prob", False) for c in found} == {True, False}
    assert {c["num_experts_per_tok"] for c in found} == {1, 2, 3}
    assert any(c.get("mlp_only_layers") and c.get("decoder_sparse_step", 1) == 2 for c in found)
    assert any(c.get("attention_bias") for c in found)
    tied = next(f for f in (HERE / "qwen3_moe").iterdir() if config_of(f).get("tie_word_embeddings"))
    assert "lm_head.weight" in names(tied)


def test_the_fixtures_cover_qwen3_next() -> None:
    found = configs("qwen3_next")
    assert {c["linear_num_value_heads"] // c["linear_num_key_heads"] for c in found} == {1, 2, 3}
    assert any(c["linear_key_head_dim"] % 2 and c["linear_value_head_dim"] % 2 for c in found)
    assert all(c["linear_key_head_dim"] != c["linear_value_head_dim"] for c in found)
    assert {c.get("linear_conv_kernel_dim", 4) for c in found} == {2, 3, 4}
    assert {c.get("norm_topk_prob", True) for c in found} == {True, False}
    assert {"layer_types" in c for c in found} == {"full_attention_interval" in c for c in found} == {True, False}
    assert any("partial_rotary_factor" not in {**c, **c.get("rope_parameters", {})} for c in found)
    assert any(c.get("mlp_only_layers") for c in found)
    assert any(c.get("decoder_sparse_step") == 2 for c in found)
    assert any(name.startswith("mtp.") for f in (HERE / "qwen3_next").iterdir() for name in names(f))


def test_the_fixtures_cover_glm4_moe_lite() -> None:
    found = configs("glm4_moe_lite")
    assert {c.get("q_lora_rank", 768) is None for c in found} == {True, False}
    assert {(c.get("n_group", 1) > 1, c.get("topk_group", 1) > 1) for c in found} == {
        (False, False),
        (True, False),
        (True, True),
    }
    assert {c.get("norm_topk_prob", True) for c in found} == {True, False}
    assert {c.get("n_shared_experts", 1) for c in found} == {1, 2}
    assert {c.get("routed_scaling_factor", 1.8) for c in found} == {0.7, 1.8, 2.5}
    assert {c.get("first_k_dense_replace") for c in found} == {0, 1, 2, None}
    assert any("mlp_layer_types" in c for c in found)
    assert {c.get("rope_interleave", True) for c in found} == {True, False}
    assert any((c.get("rope_scaling") or {}).get("mscale_all_dim") for c in found)
    assert any(c.get("attention_bias") for c in found)
    for folder in (HERE / "glm4_moe_lite").iterdir():
        config = config_of(folder)
        extra = f"model.layers.{config['num_hidden_layers']}."
        assert any(name.startswith(extra) for name in names(folder)) == bool(config.get("num_nextn_predict_layers"))
