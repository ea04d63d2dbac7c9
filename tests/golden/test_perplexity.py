"""What quantizing costs: the demo model on text that it never saw."""

import math

import pytest
from numba.core import config
from perplexity import FORMATS, STORED, nats, table

SOME = range(2, 60, 5)
LIMITS = {"bfloat16": 0.0001, "bfloat16, inputs too": 0.001, "int8": 0.002, "int4": 0.03, "int4_zero_point": 0.03}


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="many tokens in seven formats")
def test_every_format_stays_near_float32():
    """Every fifth window; ``perplexity.py`` takes them all."""
    found = {name: (perplexity, more) for name, perplexity, more in table(SOME)}
    for name, (perplexity, more) in found.items():
        print(f"{name:28} {perplexity:.3f} {round(100 * more, 2) + 0.0:+.2f} %")
    assert found.keys() == FORMATS.keys()
    stored = math.fsum(STORED["nats by window"][window] for window in SOME) / len(SOME)
    assert found["float32"][0] == pytest.approx(math.exp(stored), rel=1e-5)
    for name, (_, more) in found.items():
        assert abs(more) <= LIMITS.get(name, LIMITS.get(name.split(",")[0], 0.0)), name
    for form in ("int4", "int4_zero_point"):  # the table is a fifth of this model, and kept in int8
        assert found[f"{form}, balanced"][1] < found[f"{form}, uniform"][1]
    assert found["int4_zero_point, balanced"][1] < found["int4, balanced"][1]


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="many tokens")
@pytest.mark.parametrize("weights", [{}, {"quantize": "int4"}], ids=["bfloat16", "int4"])
def test_keys_and_values_of_eight_bits_cost_next_to_nothing(weights):
    """A thousandth more than sixteen bits do."""
    sixteen, eight = (nats({**weights, "kv_cache_dtype": kind}, SOME) for kind in ("float16", "int8"))
    print(f"{100 * math.expm1(eight - sixteen):+.3f} %")
    assert eight != sixteen and abs(math.expm1(eight - sixteen)) < 0.001
