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


def relative(found, wanted):
    """How far numbers are from others, relative L2."""
    a, b = found.reshape(-1).tolist(), wanted.reshape(-1).tolist()
    return (sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / sum(y * y for y in b)) ** 0.5
