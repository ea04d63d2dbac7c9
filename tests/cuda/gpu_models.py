"""Golden checkpoints, loaded as the interpreter can run them: short contexts, small steps, few tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pio

GOLDEN = Path(__file__).parents[1] / "golden"
DENSE, RECURRENT, SEEING = "qwen3/rope_linear", "qwen3_next/conv2_tied_yarn_f16", "qwen3_vl/one_level"
BLOCK = 32


def load(case: str, device: str = "cuda", **options: Any) -> Any:
    given = {"context_length": 96, "prefill_chunk": 48, "max_batch_sequences": 2, "speculation": "off", **options}
    return pio.load(GOLDEN / case, device=device, progress=False, **given)


def prompt(model: Any, first: int, count: int) -> list[int]:
    return [(first + 37 * i) % (model.metadata.vocab_size - 8) for i in range(count)]


def greedy(model: Any, given: Any, tokens: int = 2, **fields: Any) -> Any:
    return model.generate(given, temperature=0.0, max_new_tokens=tokens, ignore_eos=True, **fields)


def said(result: Any) -> tuple[list[int], Any]:
    return result.token_ids, result.logprobs


def relative(found: Any, wanted: Any) -> float:
    """How far numbers are from others, relative L2."""
    a, b = found.reshape(-1).tolist(), wanted.reshape(-1).tolist()
    return (sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / sum(y * y for y in b)) ** 0.5
