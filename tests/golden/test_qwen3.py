"""Tiny random qwen3 checkpoints answer as transformers does; README.md here says how they were made."""

from __future__ import annotations

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

ROOT = Path(__file__).parent / "qwen3"
CASES = sorted(folder.name for folder in ROOT.iterdir())
TOLERANCE_FLOAT32 = 1e-5  # relative L2 of the logits
# one case for each way in which a cut prompt could go wrong
CUT = ["untied_mha_long", "mqa_f16", "head128_bf16", "yarn_attention_factor", "sliding_max_window_layers"]
CUT += ["sliding_layer_types_bf16", "bias_sharded_bf16"]


def load(case: str, **options: Any) -> Any:
    import pio

    return pio.load(ROOT / case, **options)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_logits(case: str, profile: str) -> None:
    with load(case, profile=profile) as model:
        errors = logits_errors(model, ROOT / case)
    limit = tolerance(ROOT / case, profile, TOLERANCE_FLOAT32)
    assert all(error < limit for error in errors.values()), f"by prompt length: {errors}"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens(case: str, profile: str) -> None:
    with load(case, profile=profile) as model:
        for prompt in answers(ROOT / case)["prompts"]:
            assert list(greedy(model, prompt["ids"]).token_ids) == prompt["greedy"], f"{len(prompt['ids'])} tokens"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CUT)
def test_chunked_prefill_is_bit_identical(case: str, profile: str) -> None:
    """Token by token, in chunks that fit no block, and whole: the same bits."""
    ids = longest_prompt(ROOT / case)
    found = {}
    for chunk in (1, 7, 64, 512):
        with load(case, profile=profile, prefill_chunk=chunk) as model:
            found[chunk] = logits_bytes(model, ids)
    assert len(found[512]) == 4 * len(ids) * config_of(ROOT / case)["vocab_size"]
    assert [chunk for chunk, data in found.items() if data != found[512]] == []


@pytest.mark.parametrize("profile", ["balanced", "performance"])
@pytest.mark.parametrize("case", CUT)
def test_later_tokens_change_nothing(case: str, profile: str) -> None:
    """The logits of a prefix are the first rows of the logits of the whole, bit for bit."""
    ids = longest_prompt(ROOT / case)
    row = 4 * config_of(ROOT / case)["vocab_size"]
    with load(case, profile=profile) as model:
        whole = logits_bytes(model, ids)
        for length in (1, 2, 15, 16, 17, len(ids) - 1):
            assert logits_bytes(model, ids[:length]) == whole[: length * row], f"prefix of {length}"


@pytest.mark.parametrize(
    ("threads", "profile"), [(1, "balanced"), (2, "balanced"), (2, "performance")], ids=lambda value: str(value)
)
@pytest.mark.parametrize("case", CUT)
def test_a_batch_equals_its_members(case: str, threads: int, profile: str) -> None:
    """Answers and log-probabilities, which are float for float those of each prompt on its own."""
    prompts = prompts_of_all_lengths(ROOT / case)
    with load(case, threads=threads, profile=profile) as model:
        alone = [greedy(model, ids, logprobs=3) for ids in prompts]
        together = greedy_together(model, prompts, logprobs=3)
    assert [r.token_ids for r in together] == [r.token_ids for r in alone]
    assert [r.logprobs for r in together] == [r.logprobs for r in alone]
    assert all(r.logprobs for r in alone)


@pytest.mark.parametrize(
    ("case", "profile"), [("tied_gqa2", "balanced"), ("head128_bf16", "balanced"), ("head128_bf16", "performance")]
)
def test_thread_count_changes_no_bit(case: str, profile: str) -> None:
    ids = answers(ROOT / case)["prompts"][-1]["ids"]
    found = set()
    for threads in (1, 2, 3):
        with load(case, threads=threads, profile=profile) as model:
            found.add(logits_bytes(model, ids))
    assert len(found) == 1


def test_the_fixtures_are_small_and_decide() -> None:
    assert sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file()) < 3_000_000
    for case in CASES:
        for prompt in answers(ROOT / case)["prompts"]:
            assert len(prompt["greedy"]) == len(prompt["margins"]) == NEW_TOKENS
            assert prompt["smallest_margin"] == min(prompt["margins"]) > 0.02


def test_the_fixtures_cover_what_they_promise() -> None:
    configs = [config_of(ROOT / case) for case in CASES]
    ropes = [c.get("rope_parameters") or c.get("rope_scaling") or {} for c in configs]
    groups = {c["num_attention_heads"] // c["num_key_value_heads"] for c in configs}
    assert groups >= {1, 2, 3, 5}
    assert any(c["num_key_value_heads"] == 1 for c in configs)
    assert {c["tie_word_embeddings"] for c in configs} == {True, False}
    assert {c.get("dtype") or c.get("torch_dtype") for c in configs} == {"float32", "float16", "bfloat16"}
    assert {("rope_parameters" in c, "rope_theta" in c) for c in configs} == {(True, False), (False, True)}
    assert {r.get("rope_type") or r.get("type", "default") for r in ropes} == {"default", "linear", "llama3", "yarn"}
    assert any(c["hidden_size"] % 2 and c["vocab_size"] % 2 and c["intermediate_size"] % 2 for c in configs)
    assert any(c["attention_bias"] for c in configs)
    assert sum(c["use_sliding_window"] for c in configs) == 2
    assert any(c["head_dim"] * c["num_attention_heads"] != c["hidden_size"] for c in configs)
    assert any((ROOT / case).glob("*.index.json") for case in CASES)
    lengths = {len(prompt["ids"]) for case in CASES for prompt in answers(ROOT / case)["prompts"]}
    assert lengths >= {1, 2, 17, 90, 300}
