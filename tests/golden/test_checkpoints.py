"""Tiny random checkpoints answer as transformers does; README.md here says how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from golden_case import (
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
EXPERTS = ("qwen3_moe", "qwen3_next", "glm4_moe_lite")
CASES = [f"{a}/{folder.name}" for a in ("qwen3", *EXPERTS) for folder in sorted((HERE / a).iterdir())]
# one dense case for each way in which a cut prompt could go wrong, and all others
CUT = ["untied_mha_long", "mqa_f16", "head128_bf16", "yarn_attention_factor", "sliding_max_window_layers"]
CUT += ["sliding_layer_types_bf16", "bias_sharded_bf16"]
CUT = [case for case in CASES if case.partition("/")[0] in EXPERTS or case.partition("/")[2] in CUT]
THREADS = ["qwen3/tied_gqa2", "qwen3/head128_bf16", "qwen3_moe/sparse_step2_tied_sharded_bf16"]
THREADS += ["qwen3_next/heads3x_sharded_bf16", "glm4_moe_lite/as_published"]
# relative L2 of the logits, of float32 folders and of bfloat16 ones with rounded inputs: these move dense models by 0.3
# to 0.9 %, and where there are experts prompts were chosen so that no row moves by more than 3 %
TOLERANCES = {"qwen3": (1e-5, 1.2e-2)} | dict.fromkeys(EXPERTS, (1e-4, 3e-2))


def load(case: str, **options: Any) -> Any:
    import pio

    return pio.load(HERE / case, **options)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_logits(case: str, profile: str) -> None:
    with load(case, profile=profile) as model:
        errors = logits_errors(model, HERE / case)
    limit = tolerance(HERE / case, profile, *TOLERANCES[case.partition("/")[0]])
    assert all(error < limit for error in errors.values()), f"by prompt length: {errors}"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens(case: str, profile: str) -> None:
    with load(case, profile=profile) as model:
        for prompt in answers(HERE / case)["prompts"]:
            assert list(greedy(model, prompt["ids"]).token_ids) == prompt["greedy"], f"{len(prompt['ids'])} tokens"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CUT)
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
@pytest.mark.parametrize("case", CUT)
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
@pytest.mark.parametrize("case", CUT)
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
@pytest.mark.parametrize("case", THREADS)
def test_thread_count_changes_no_bit(case: str, profile: str) -> None:
    ids = longest_prompt(HERE / case)
    found = set()
    for threads in (1, 2, 3):
        with load(case, threads=threads, profile=profile) as model:
            found.add(logits_bytes(model, ids))
    assert len(found) == 1
