import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from logits_rows import rows, tensor

from pio.engine.random_numbers import mix, uniform
from pio.errors import ConfigError, PioError, TensorError
from pio.kernels.simd import JIT
from pio.ops import sampling
from pio.ops.bans import Bans
from pio.ops.penalties import Penalties
from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor
from pio.testing.reference import sampling as reference
from pio.testing.reference.top_k import top_k


def choose(sampler: Sampler, logits: Tensor, choice: Choice, row: int = 1, u: float = 0.0) -> Choice:
    """Let a sampler choose one token; the choice as it came out."""
    choice.aim(row, u)
    sampler.sample(logits, [choice])
    if choice.token < 0:
        raise choice.refusal(logits)
    return choice


def likeliest(row: list[float], **options: Any) -> int:
    return choose(Sampler(len(row)), tensor(row), Choice(**options)).token


def drawn(row: list[float], u: float, *arguments: Any, **options: Any) -> int:
    return choose(Sampler(len(row)), tensor(row), Choice(*arguments, **options), u=u).token


@given(rows())
def test_the_likeliest_is_the_first_largest(row: list[float]) -> None:
    assert likeliest(row) == row.index(max(row))


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


@given(rows(), st.data())
def test_logprobs_are_log_softmax_of_raw_logits(row: list[float], data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(row) - 1))
    top = data.draw(st.integers(0, len(row) + 2))
    nothing_else = Bans([], len(row), always=set(range(len(row))) - {token})
    choice = Choice(logprobs=top, penalties=Penalties([], 1, len(row), bias={token: 3.0}, bans=nothing_else))
    assume(row[token] > -math.inf)
    chosen = choose(Sampler(len(row)), tensor(row), choice)
    logprob, best = chosen.logprob, chosen.likeliest
    assert chosen.token == token
    expected = reference.log_softmax(row)
    assert logprob == pytest.approx(expected[token], abs=2e-5)
    ranked = [i for _, i in top_k(row, top)]
    assert [i for i, _ in best] == ranked
    assert [p for _, p in best] == pytest.approx([expected[i] for i in ranked], abs=2e-5)


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize("n", [1, 16, 70, 333])
def test_logits_that_are_not_finite_are_refused(bad: float, n: int) -> None:
    for at in {0, n // 2, n - 1}:
        row = [float(-i) for i in range(n)]
        row[at] = bad
        for others in ([-math.inf], [math.inf]):  # an infinity beside it must not hide it
            row[(at + 1) % n] = others[0] if n > 1 else bad
            for choice in (
                Choice(),
                Choice(1.0, 3),
                Choice(1.0, 0, 0.9),
                Choice(logprobs=0),
                Choice(penalties=Penalties([], 1, n, bans=Bans([], n, always=[at]))),
            ):
                with pytest.raises(PioError, match="token id"):
                    choose(Sampler(n), tensor(row), choice, u=0.5)


def test_nothing_but_minus_infinity_is_refused() -> None:
    with pytest.raises(PioError, match="nothing but -inf"):
        likeliest([-math.inf] * 37)


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


@given(st.data())
def test_rows_beside_a_row_change_nothing(data: st.DataObject) -> None:
    """Each with its own way to choose, as alone."""
    n = data.draw(st.integers(5, 90))
    logits = data.draw(st.lists(rows(n, n), min_size=2, max_size=5))
    x, sampler = Tensor.from_list(logits), Sampler(n)
    order = data.draw(st.permutations(range(len(logits))))
    us = [data.draw(st.floats(0, 1, exclude_max=True)) for _ in logits]

    def make(row: int) -> Choice:
        penalties = Penalties([row], 3, n, repetition=1.0 + row, bans=Bans([row], n, first=[row], sequences=[[row, 4]]))
        ways = [(0.0,), (0.7,), (1.3, 3), (0.9, 0, 0.8), (1.0, 0, 1.0, 0.1)]
        return Choice(*ways[row], penalties=penalties if row % 2 else None, logprobs=row if row != 1 else None)

    together = {row: make(row) for row in order}
    for row, choice in together.items():
        choice.aim(row, us[row])
    sampler.sample(x, list(together.values()))
    for row, choice in together.items():
        alone = make(row)
        alone.aim(row, us[row])
        Sampler(n).sample(x, [alone])
        assert choice.token == alone.token
        assert (choice.logprob, choice.likeliest) == (alone.logprob, alone.likeliest)
        assert len(choice.likeliest) == (0 if row == 1 or choice.token < 0 else min(row, n))


def test_a_choice_may_be_used_again_and_again() -> None:
    row = [0.0, 3.0, 2.0, 1.0]
    choice = Choice(penalties=Penalties([], 3, 4, bans=Bans([], 4, first=[1], ngram=1)))
    found: list[int] = []
    for _ in range(3):
        found.append(choose(Sampler(4), tensor(row), choice).token)
        choice.penalties.count(found[-1])
    assert found == [2, 1, 3]


def test_shapes_and_rows_are_checked() -> None:
    with pytest.raises(TensorError, match="shape"):
        choose(Sampler(5), Tensor.zeros((2, 4)), Choice(), 0)
    for row in (2, -1):
        with pytest.raises(TensorError, match=f"row {row} is outside"):
            choose(Sampler(4), Tensor.zeros((2, 4)), Choice(), row)
    with pytest.raises(ConfigError, match="token id 4"):
        Penalties([1], 3, 4, bias={4: 1.0})


def test_uniform_numbers_are_fixed_and_spread() -> None:
    # seed 0 is the well-known stream of splitmix64; a change here would change every seeded text
    stream = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    assert [uniform(mix(0), i) for i in range(3)] == [(x >> 11) / 2**53 for x in stream]
    for seed in (0, 1, 2**63):
        draws = [uniform(mix(seed), i) for i in range(4000)]
        assert all(0 <= u < 1 for u in draws)
        assert abs(sum(draws) / 4000 - 0.5) < 0.02
        tenths = Counter(int(u * 10) for u in draws)
        assert all(300 < tenths[i] < 500 for i in range(10))
    neighbours = [uniform(mix(seed), 9) for seed in range(4000)]
    assert abs(sum(neighbours) / 4000 - 0.5) < 0.02
