"""How surprised the demo model is by text that it never saw, in every format of weights.

python tests/golden/perplexity.py          prints the table of the README, in a few minutes
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

import pio
from pio.loading.quantization_config import Format, Policy

HERE = Path(__file__).parent
STORED = json.loads((HERE / "demo.json").read_text("utf-8"))["held out"]
WIDTH, WINDOWS = STORED["window"], len(STORED["nats by window"])
FORMATS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {},
    "bfloat16, inputs too": {"activation_dtype": "bfloat16"},
    "int8": {"quantize": "int8"},  # under every policy
    **{
        f"{form}, {policy}": {"quantize": form, "quantize_policy": policy}
        for form in get_args(Format)
        if form != "int8"
        for policy in get_args(Policy)
    },
}


def nats(options: dict[str, Any], windows: Sequence[int]) -> float:
    """Mean negative log-likelihood of the tokens in these windows, each with those before it in its window."""
    losses = []
    with pio.load("demo", **options) as model:
        ids = model.tokenize((HERE / "heldout.txt").read_text("utf-8"))
        for window in windows:
            start = window * WIDTH
            logits = model.logits(ids[start : start + WIDTH]).memoryview()
            rows = np.frombuffer(logits, np.float32).reshape(WIDTH, -1).astype(np.float64)
            rows -= rows.max(axis=1, keepdims=True)
            likely = rows[np.arange(WIDTH), ids[start + 1 : start + 1 + WIDTH]]
            losses.append(float(np.mean(np.log(np.exp(rows).sum(axis=1)) - likely)))
    return math.fsum(losses) / len(losses)


def table(windows: Sequence[int] = range(WINDOWS)) -> Iterator[tuple[str, float, float]]:
    """Yield format, perplexity, and how much more it is than that of float32."""
    exact = 0.0
    for name, options in FORMATS.items():
        found = nats(options, windows)
        exact = exact or found
        yield name, math.exp(found), math.exp(found - exact) - 1


if __name__ == "__main__":
    for name, perplexity, more in table():
        print(f"| {name} | {perplexity:.3f} | {round(100 * more, 2) + 0.0:+.2f} % |", flush=True)
