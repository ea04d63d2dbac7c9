import math
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pio.engine.random_numbers import uniform
from pio.errors import ConfigError, PioError, TensorError
from pio.kernels.simd import JIT
from pio.ops import sampling
from pio.ops.bans import Bans
from pio.ops.sampling import Penalties, Sampler
from pio.tensor import Tensor
from pio.testing.reference import sampling as reference
from pio.testing.reference.top_k import top_k

LOGITS = st.floats(-30, 30, width=32) | st.sampled_from([-math.inf, 0.0, 2.0])


@st.composite
def rows(draw: st.DrawFn, least: int = 1, most: int = 300) -> list[float]:
    row = draw(st.lists(LOGITS, min_size=least, max_size=most))
    assume(max(row) > -math.inf)
    return row


def tensor(row: list[float]) -> Tensor:
    """The row as the second of three: the others would be chosen where a row offset is lost."""
    return Tensor.from_list([[50.0 - i for i in range(len(row))], row, [float(i + 60) for i in range(len(row))]])


@given(rows())
def test_the_likeliest_is_the_first_largest(row: list[float]) -> None:
    assert Sampler(len(row)).likeliest(tensor(row), 1) == row.index(max(row))


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
    token = Sampler(len(row)).draw(tensor(row), 1, u, temperature, k, top_p, min_p)
    if not 0 < k < len(row) and top_p >= 1 and min_p == 0:
        chances.sort()  # without a filter nothing is put in order, and the draw goes by id
    assert agrees(chances, u, token)


@pytest.mark.parametrize("u", [0.0, 0.25, 0.5, 0.75, 1 - 2**-53])
@pytest.mark.parametrize(("top_p", "min_p"), [(0.9, 0.0), (1.0, 0.3), (0.999, 0.0), (0.5, 0.9999)])
def test_a_nucleus_larger_than_every_rung(
    monkeypatch: pytest.MonkeyPatch, top_p: float, min_p: float, u: float
) -> None:
    monkeypatch.setattr(sampling, "RUNGS", (2, 7, 50))
    row = [math.sin(i * 0.7) * 0.3 for i in range(211)]
    row = Tensor.from_list(row).tolist()  # as float32 has it
    token = Sampler(211).draw(tensor(row), 1, u, 1.0, 0, top_p, min_p)
    assert agrees(reference.candidates(row, 1.0, 0, top_p, min_p), u, token)


@given(rows(), st.floats(0, 1, exclude_max=True))
def test_a_draw_of_probability_zero_never_happens(row: list[float], u: float) -> None:
    sampler = Sampler(len(row))
    for arguments in ((1.0,), (0.05, 5), (1.0, 0, 0.999999), (1.0, 0, 1.0, 1e-9)):
        assert row[sampler.draw(tensor(row), 1, u, *arguments)] > -math.inf


@given(rows(least=3), st.data())
def test_penalties_and_biases(row: list[float], data: st.DataObject) -> None:
    token = st.integers(0, len(row) - 1)
    prompt = data.draw(st.lists(token, min_size=1, max_size=9))
    answer = data.draw(st.lists(token, max_size=12))
    bias = data.draw(st.dictionaries(token, st.sampled_from([-100.0, -1.5, 3.0]), max_size=3))
    repetition = data.draw(st.sampled_from([1.0, 1.3, 0.5]))
    presence = data.draw(st.sampled_from([0.0, 1.25, -2.0]))
    frequency = data.draw(st.sampled_from([0.0, 0.75, -0.5]))
    penalties = Penalties(
        prompt, len(answer), len(row), repetition=repetition, presence=presence, frequency=frequency, bias=bias
    )
    for t in answer:
        penalties.count(t)
    expected = reference.penalize(
        row, prompt, answer, repetition=repetition, presence=presence, frequency=frequency, bias=bias
    )
    logits = tensor(row)
    before = bytes(logits.memoryview())
    chosen = Sampler(len(row)).likeliest(logits, 1, penalties)
    assert expected[chosen] >= max(expected) - 1e-4
    assert bytes(logits.memoryview()) == before
    rounded = Tensor.from_list(expected).tolist()
    chances = reference.candidates(rounded, 1.0, 2)
    assume(len(row) == 2 or sorted(rounded)[-2] > sorted(rounded)[-3] + 1e-3)  # a clear second
    assume(chances[0][1] > chances[-1][1] + 1e-3)
    assert agrees(chances, 0.7, Sampler(len(row)).draw(logits, 1, 0.7, 1.0, 2, penalties=penalties))


@given(rows(least=3), st.data())
def test_banned_tokens_do_not_come(row: list[float], data: st.DataObject) -> None:
    token = st.integers(0, len(row) - 1)
    never = data.draw(st.lists(token, max_size=len(row)))
    bias = data.draw(st.dictionaries(token, st.just(100.0), max_size=2))  # a bias does not bring a token back
    expected = reference.penalize(row, [], [], bias=bias, banned=never)
    penalties = Penalties([], 1, len(row), bias=bias, bans=Bans([], len(row), always=never))
    logits, sampler = tensor(row), Sampler(len(row))
    before = bytes(logits.memoryview())
    if max(expected) == -math.inf:
        with pytest.raises(ConfigError, match=r"suppress_tokens.*forbid every token that could come next"):
            sampler.likeliest(logits, 1, penalties)
        return
    assert expected[sampler.likeliest(logits, 1, penalties)] >= max(expected) - 1e-4  # biases round
    for arguments in ((1.0,), (1.0, 2), (1.0, 0, 0.9)):
        drawn = sampler.draw(logits, 1, data.draw(st.floats(0, 1, exclude_max=True)), *arguments, penalties=penalties)
        assert expected[drawn] > -math.inf
    assert bytes(logits.memoryview()) == before
    assert sampler.logprobs(logits, 1, 0)[0] == pytest.approx(reference.log_softmax(row)[0], abs=2e-5)


@given(rows(), st.data())
def test_logprobs_are_log_softmax_of_raw_logits(row: list[float], data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(row) - 1))
    top = data.draw(st.integers(0, len(row) + 2))
    logprob, best = Sampler(len(row)).logprobs(tensor(row), 1, token, top)
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
            for call in (
                lambda s, x: s.likeliest(x, 1),
                lambda s, x: s.draw(x, 1, 0.5, 1.0, 3),
                lambda s, x: s.draw(x, 1, 0.5, 1.0, 0, 0.9),
                lambda s, x: s.logprobs(x, 1, 0),
            ):
                with pytest.raises(PioError, match="token id"):
                    call(Sampler(n), tensor(row))


def test_nothing_but_minus_infinity_is_refused() -> None:
    with pytest.raises(PioError, match="nothing but -inf"):
        Sampler(37).likeliest(tensor([-math.inf] * 37), 1)


def test_large_logits_and_small_temperatures_stay_finite() -> None:
    row = [3e38, 2.9e38, -3e38, 3e38]
    for u in (0.0, 0.49, 0.51, 0.99):
        for arguments in ((1e-5,), (1e-5, 2), (1e-5, 0, 0.9), (100.0, 3, 1.0, 0.1)):
            assert Sampler(4).draw(tensor(row), 1, u, *arguments) == (0 if u < 0.5 else 3)


def test_draws_follow_the_probabilities() -> None:
    row = [0.0, math.log(2), -math.inf, math.log(5)]
    x = tensor(row)
    sampler = Sampler(4)
    draws = 8000
    for arguments in ((1.0,), (1.0, 3), (1.0, 0, 0.9999)):
        counts = Counter(sampler.draw(x, 1, uniform(7, i), *arguments) for i in range(draws))
        for token, chance in ((0, 1 / 8), (1, 2 / 8), (3, 5 / 8)):
            assert abs(counts[token] / draws - chance) < 5 * math.sqrt(chance * (1 - chance) / draws)
        assert sum(counts.values()) == draws


def test_vocabulary_of_a_real_model() -> None:
    n = 151_936 if JIT else 5_003
    row = [uniform(3, i) * 8 for i in range(n)]
    for i in (5, n // 2, n - 1):
        row[i] = 20.0 + i / n
    row = Tensor.from_list(row).tolist()
    x = Tensor.from_list([row])
    sampler = Sampler(n)
    assert sampler.likeliest(x, 0) == n - 1
    for u in (0.1, 0.6, 0.9999):
        for k, p, m in ((20, 0.95, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.5), (0, 1.0, 0.0)):
            chances = reference.candidates(row, 0.6, k, p, m)
            if (k, p, m) == (0, 1.0, 0.0):
                chances.sort()
            assert agrees(chances, u, sampler.draw(x, 0, u, 0.6, k, p, m))


def test_shapes_and_rows_are_checked() -> None:
    with pytest.raises(TensorError, match="shape"):
        Sampler(5).likeliest(Tensor.zeros((2, 4)), 0)
    with pytest.raises(TensorError, match="row 2"):
        Sampler(4).likeliest(Tensor.zeros((2, 4)), 2)
    with pytest.raises(ConfigError, match="token id 4"):
        Penalties([1], 3, 4, bias={4: 1.0})


def test_uniform_numbers_are_fixed_and_spread() -> None:
    # seed 0 is the well-known stream of splitmix64; a change here would change every seeded text
    stream = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    assert [uniform(0, i) for i in range(3)] == [(x >> 11) / 2**53 for x in stream]
    for seed in (0, 1, 2**63):
        draws = [uniform(seed, i) for i in range(4000)]
        assert all(0 <= u < 1 for u in draws)
        assert abs(sum(draws) / 4000 - 0.5) < 0.02
        tenths = Counter(int(u * 10) for u in draws)
        assert all(300 < tenths[i] < 500 for i in range(10))
    neighbours = [uniform(seed, 9) for seed in range(4000)]
    assert abs(sum(neighbours) / 4000 - 0.5) < 0.02
