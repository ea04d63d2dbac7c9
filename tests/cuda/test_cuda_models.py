"""Whole models on a GPU beside the same models on the CPU: logits, tokens, and what a step asks of the driver."""

from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

import pio

GOLDEN = Path(__file__).parents[1] / "golden"
PROMPT = [5, 11, 3, 17, 8]
CASES = ("qwen3/tied_gqa2",)


def load(case, **options):
    given = {"context_length": 64, "prefill_chunk": 8, "max_batch_sequences": 2, "speculation": "off", **options}
    return pio.load(GOLDEN / case, **given)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_tokens_are_those_of_the_cpu(driver, case):
    with load(case) as model:
        wanted = model.logits(PROMPT)
        tokens = model.generate(PROMPT, max_new_tokens=2, temperature=0).token_ids
    with load(case, device="cuda") as model:
        found = model.logits(PROMPT)
        assert relative(found, wanted) < 2e-3
        assert model.generate(PROMPT, max_new_tokens=2, temperature=0).token_ids == tokens


def relative(found, wanted):
    """How far numbers are from others, relative L2."""
    a, b = found.reshape(-1).tolist(), wanted.reshape(-1).tolist()
    return (sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / sum(y * y for y in b)) ** 0.5
