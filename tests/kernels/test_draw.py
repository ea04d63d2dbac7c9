import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from logits_rows import choose, rows, tensor

from pio.engine.random_numbers import mix, uniform
from pio.kernels.simd import JIT
from pio.ops import sampling
from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor
from pio.testing.reference import draw as reference


def drawn(row: list[float], u: float, *arguments: Any, **options: Any) -> int:
    return choose(Sampler(len(row)), tensor(row), Choice(*arguments, **options), u=u).token


def agrees(chances: list[tuple[int, float]], u: float, token: int) -> bool:
    """Whether the token is the reference's, or u so near a border that rounding decides."""
    return any(reference.draw(chances, max(0.0, u + d)) == token for d in (0, -3e-6, 3e-6))


@given(
    rows(),
    st.floats(0.05, 5),
    st.integers(0, 320),
    st.floats(0.01, 1),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.floats(0, 1, exclude_max=True),
)
def test_a_draw_is_the_reference_draw(
    row: list[float], temperature: float, k: int, top_p: float, min_p: float, u: float
) -> None:
    chances = reference.candidates(row, temperature, k, top_p, min_p)
    # what is in the nucleus must not hang on the last bit
    for p, m in ((top_p * (1 - 1e-5), min_p * (1 + 1e-5)), (top_p * (1 + 1e-5), min_p * (1 - 1e-5))):
        assume(len(reference.candidates(row, temperature, k, min(p, 1.0), m)) == len(chances))
    token = drawn(row, u, temperature, k, top_p, min_p)
    if not 0 < k < len(row) and top_p >= 1 and min_p == 0:
        chances.sort()  # without a filter nothing is put in order, and the draw goes by id
    assert agrees(chances, u, token)


@pytest.mark.parametrize("u", [0.0, 0.25, 0.5, 0.75, 1 - 2**-53])
@pytest.mark.parametrize(("top_p", "min_p"), [(0.9, 0.0), (1.0, 0.3), (0.999, 0.0), (0.5, 0.9999)])
def test_a_nucleus_larger_than_every_rung(
    monkeypatch: pytest.MonkeyPatch, top_p: float, min_p: float, u: float
) -> None:
    monkeypatch.setattr(sampling, "RUNGS", (7, 50))
    row = [math.sin(i * 0.7) * 0.3 for i in range(211)]
    row = Tensor.from_list(row).tolist()  # as float32 has it
    token = drawn(row, u, 1.0, 0, top_p, min_p)
    assert agrees(reference.candidates(row, 1.0, 0, top_p, min_p), u, token)


@given(rows(), st.floats(0, 1, exclude_max=True))
def test_a_draw_of_probability_zero_never_happens(row: list[float], u: float) -> None:
    for arguments in ((1.0,), (0.05, 5), (1.0, 0, 0.999999), (1.0, 0, 1.0, 1e-9)):
        assert row[drawn(row, u, *arguments)] > -math.inf


def test_large_logits_and_small_temperatures_stay_finite() -> None:
    row = [3e38, 2.9e38, -3e38, 3e38]
    for u in (0.0, 0.49, 0.51, 0.99):
        for arguments in ((1e-5,), (1e-5, 2), (1e-5, 0, 0.9), (100.0, 3, 1.0, 0.1)):
            assert drawn(row, u, *arguments) == (0 if u < 0.5 else 3)


def test_draws_follow_the_probabilities() -> None:
    row = [0.0, math.log(2), -math.inf, math.log(5)]
    x = tensor(row)
    sampler = Sampler(4)
    draws = 8000
    for arguments in ((1.0,), (1.0, 3), (1.0, 0, 0.9999)):
        choice = Choice(*arguments)
        counts = Counter(choose(sampler, x, choice, u=uniform(mix(7), i)).token for i in range(draws))
        for token, chance in ((0, 1 / 8), (1, 2 / 8), (3, 5 / 8)):
            assert abs(counts[token] / draws - chance) < 5 * math.sqrt(chance * (1 - chance) / draws)
        assert sum(counts.values()) == draws


def test_vocabulary_of_a_real_model() -> None:
    n = 151_936 if JIT else 5_003
    row = [uniform(mix(3), i) * 8 for i in range(n)]
    for i in (5, n // 2, n - 1):
        row[i] = 20.0 + i / n
    row = Tensor.from_list(row).tolist()
    x = Tensor.from_list([row])
    sampler = Sampler(n)
    assert choose(sampler, x, Choice(), 0).token == n - 1
    for u in (0.1, 0.6, 0.9999):
        for k, p, m in ((20, 0.95, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.5), (0, 1.0, 0.0)):
            chances = reference.candidates(row, 0.6, k, p, m)
            if (k, p, m) == (0, 1.0, 0.0):
                chances.sort()
            assert agrees(chances, u, choose(sampler, x, Choice(0.6, k, p, m), 0, u).token)
