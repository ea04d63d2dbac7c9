"""Whole models on a GPU beside the same models on the CPU: logits, tokens, and what a step asks of the driver."""

from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

import pio

GOLDEN = Path(__file__).parents[1] / "golden"
PROMPT = [5, 11, 3, 17, 8]
CASES = (
    ("qwen3/tied_gqa2", {}),
    ("qwen3/head128_bf16", {"kv_cache_dtype": "float16"}),
    ("qwen3/tied_gqa2", {"quantize": "int8"}),
    ("qwen3_moe/sparse_step2_tied_sharded_bf16", {"quantize": "int4"}),
    ("qwen3_next/heads1x", {}),
    ("glm4_moe_lite/as_published", {}),
    ("glm4_moe_lite/one_group_tied_yarn_f16", {}),  # whose keys are no multiple of eight wide
)


def load(case, **options):
    given = {"context_length": 64, "prefill_chunk": 8, "max_batch_sequences": 2, "speculation": "off", **options}
    return pio.load(GOLDEN / case, **given)


@pytest.mark.parametrize(("case", "options"), CASES)
def test_logits_and_tokens_are_those_of_the_cpu(driver, case, options):
    with load(case, device="cpu", **options) as model:
        wanted = model.logits(PROMPT)
        tokens = model.generate(PROMPT, max_new_tokens=2, temperature=0).token_ids
    with load(case, device="cuda", **options) as model:
        found = model.logits(PROMPT)
        assert relative(found, wanted) < 2e-3
        assert model.generate(PROMPT, max_new_tokens=2, temperature=0).token_ids == tokens


@pytest.mark.parametrize(("case", "options"), [CASES[0], CASES[2], CASES[4]])
def test_bits_do_not_depend_on_how_a_prompt_is_cut(driver, case, options):
    found = []
    for chunk in (8, 2):
        with load(case, device="cuda", prefill_chunk=chunk, **options) as model:
            found.append(model.logits(PROMPT).tolist())
    assert found[0] == found[1]


def test_a_token_costs_one_copy_a_graph_a_launch_and_a_wait(driver):
    with load("qwen3/tied_gqa2", device="cuda") as model:
        model.generate(PROMPT, max_new_tokens=4, temperature=0)
        driver.calls.clear()
        model.generate([7, *PROMPT], max_new_tokens=1, temperature=0)
        first = len(driver.calls)
        model.generate([9, *PROMPT], max_new_tokens=3, temperature=0)
        step = [call for call in driver.calls[first:] if call != "enter"]
    assert step[: len(step) // 3] * 3 == step
    assert step[: len(step) // 3] == ["copy_in", "run_graph", "launch", "copy_out", "wait"]


def relative(found, wanted):
    """How far numbers are from others, relative L2."""
    a, b = found.reshape(-1).tolist(), wanted.reshape(-1).tolist()
    return (sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / sum(y * y for y in b)) ** 0.5
