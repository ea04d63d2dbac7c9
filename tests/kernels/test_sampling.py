import ctypes
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from logits_rows import choose, rows, tensor

from pio.device import Device
from pio.dtypes import float32
from pio.engine.random_numbers import mix, uniform
from pio.errors import ConfigError, PioError, TensorError
from pio.kernels.simd import JIT
from pio.ops.bans import Bans
from pio.ops.penalties import Penalties
from pio.ops.sampling import Choice, Sampler
from pio.ops.token_mask import TokenMask
from pio.tensor import Tensor
from pio.testing.reference import sampling as reference
from pio.testing.reference.top_k import top_k


def likeliest(row: list[float], **options: Any) -> int:
    return choose(Sampler(len(row)), tensor(row), Choice(**options)).token


@given(rows())
def test_the_likeliest_is_the_first_largest(row: list[float]) -> None:
    assert likeliest(row) == row.index(max(row))


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


@pytest.mark.parametrize(("threads", "together"), [(1, 16), (2, 16), (3, 16), (5, 2)])
def test_threads_choose_rows_side_by_side(threads: int, together: int) -> None:
    """Seven rows, each with another way to choose, over threads that each have scratch of their own."""
    n, count = (30_011, 7) if JIT else (9_001, 4)
    x = Tensor.from_list([[uniform(mix(row), i) * 9 for i in range(n)] for row in range(count)])
    device = Device("cpu", threads=threads)

    def make(row: int) -> Choice:
        bans = Bans([], n, guided=True, always=[row])
        if row % 3 == 1:
            bans.mask = TokenMask(n, range(row, n - 7, row + 1))
        penalties = Penalties([row, 5], 3, n, repetition=1.0 + row, bans=bans)
        ways = [(0.0,), (0.7,), (1.3, 3), (0.9, 0, 0.8), (1.0, 0, 1.0, 0.1), (2.5,), (0.1, 40, 0.9)]
        choice = Choice(*ways[row], penalties=penalties if row % 2 else None, logprobs=3 if row != 1 else None)
        choice.aim(row, uniform(mix(99), row))
        return choice

    sampler, chosen = Sampler(n, rows=together, device=device), [make(row) for row in reversed(range(count))]
    scratch = sampler._arena.storage
    Tensor(scratch, scratch.address, float32, (sampler.nbytes // 4,), (1,)).fill_(math.nan)
    for _ in range(2):
        sampler.sample(x, chosen)
    for address, size in zip(sampler._scratch[1:], (-(-n // 64), -(-n // 64), 2 * n), strict=True):
        for part in range(min(threads, together)):
            assert not math.isnan(ctypes.c_float.from_address(address + 4 * size * part).value)
    for choice in chosen:
        alone = make(choice.record[0])
        Sampler(n, device=Device("cpu", threads=1)).sample(x, [alone])
        assert (choice.token, choice.logprob, choice.likeliest) == (alone.token, alone.logprob, alone.likeliest)
        assert choice.token >= 0


def test_scratch_is_for_as_many_rows_as_are_chosen_at_once() -> None:
    one, two, four = (Sampler(5_003, rows=rows, device=Device("cpu", threads=4)).nbytes for rows in (1, 2, 9))
    assert 3 * 4 * 5_003 < one < two < four and four > 3 * one
    assert Sampler(5_003, rows=9, device=Device("cpu", threads=1)).nbytes == one


def test_a_choice_may_be_used_again_and_again() -> None:
    row = [0.0, 3.0, 2.0, 1.0]
    choice = Choice(penalties=Penalties([], 3, 4, bans=Bans([], 4, first=[1], ngram=1)))
    found: list[int] = []
    for _ in range(3):
        found.append(choose(Sampler(4), tensor(row), choice).token)
        choice.penalties.count(found[-1])
    assert found == [2, 1, 3]


def test_shapes_and_rows_are_checked() -> None:
    Sampler(4).sample(Tensor.zeros((2, 4)), [])
    with pytest.raises(TensorError, match="shape"):
        choose(Sampler(5), Tensor.zeros((2, 4)), Choice(), 0)
    for row in (2, -1):
        with pytest.raises(TensorError, match=f"row {row} is outside"):
            choose(Sampler(4), Tensor.zeros((2, 4)), Choice(), row)
    with pytest.raises(ConfigError, match="token id 4"):
        Penalties([1], 3, 4, bias={4: 1.0})
