"""Attention over caches of int8 on a GPU beside the CPU's, which rounds queries and probabilities as it does."""

import math
from itertools import pairwise

import pytest
from attention_case import Case
from gpu_case import bytes_of, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from pio.kernels.cuda._quantized_full_attention import full_attention
from pio.tensor import Tensor

ERROR = 2e-4  # a probability that is rounded the other way is off by 1 / 127 of a block's largest


@settings(max_examples=6)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=3), kv_heads=st.integers(1, 3),
    head_dim=st.integers(1, 150),
)  # fmt: skip
def test_write_cache(lengths, kv_heads, head_dim):
    wanted, found = (Case(lengths, kv_heads, 1, head_dim, "int8") for _ in range(2))
    wanted.fill()
    found.write(*[(s, 0, length) for s, length in enumerate(lengths)])
    assert bytes_of(found.keys) == bytes_of(wanted.keys)
    assert bytes_of(found.values) == bytes_of(wanted.values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
@pytest.mark.parametrize("where", ["k", "v"])
def test_what_is_no_number_spoils_who_sees_it(where, bad):
    case = Case([40], 1, 2, 64, "int8")
    getattr(case, where)[0][35:36, 0:1, 3:4].copy_(Tensor.full((1, 1, 1), bad))
    case.write((0, 0, 40))
    found = case.attend((0, 33, 40)).tolist()
    spoiled = [any(math.isnan(x) for head in token for x in head) for token in found]
    if where == "v" and math.isfinite(bad):
        assert spoiled == [False] * 7
    else:
        assert spoiled == [False, False, True, True, True, True, True]


@settings(max_examples=6)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=3), kv_heads=st.integers(1, 2), group=st.integers(1, 9),
    head_dim=st.one_of(st.sampled_from([64, 128]), st.integers(1, 150)), window=st.integers(0, 40), data=st.data(),
    causal=st.booleans(),
)  # fmt: skip
def test_beside_the_cpu(lengths, kv_heads, group, head_dim, window, causal, data):
    case = Case(lengths, kv_heads, group, head_dim, "int8", seed=data.draw(st.integers(1, 99)))
    case.fill()
    parts = [(s, max(0, length - data.draw(st.integers(1, 9))), length) for s, length in enumerate(lengths)]
    found = case.attend(*parts, causal=causal, window=window)
    # a window, however wide, keeps the CPU from taking four blocks together where every query sees everything
    wanted = case.wanted(*parts, causal=causal, window=window if causal or window else 1000)
    assert relative_error(found, wanted) < ERROR


@pytest.mark.parametrize(("group", "head_dim", "window"), [(3, 64, 0), (16, 80, 0), (2, 128, 300), (1, 272, 0)])
def test_stretches_of_several_blocks_are_those_of_one(group, head_dim, window):
    case = Case([523, 41, 270], 2, group, head_dim, "int8")
    case.fill()
    parts = [(0, 521, 523), (1, 30, 41), (2, 269, 270)]
    alone = case.attend(*parts, window=window)
    assert relative_error(alone, case.wanted(*parts, window=window)) < ERROR
    for room, multiprocessors in ((1 << 20, 3), (60_000, 1)):
        split = case.attend(*parts, window=window, room=room, multiprocessors=multiprocessors)
        assert bytes_of(split) == bytes_of(alone)


def test_a_prompt_cut_anywhere_gives_the_same_bits():
    length, cuts = 301, (0, 1, 17, 260, 300, 301)
    case = Case([length], 1, 3, 64, "int8")
    case.fill()
    whole = case.attend((0, 0, length), multiprocessors=4)
    assert relative_error(whole, case.wanted((0, 0, length))) < ERROR
    for first, last in pairwise(cuts):
        part = case.attend((0, first, last), room=1 << 20, multiprocessors=2)
        assert bytes_of(part) == bytes_of(whole[first:last].clone())


@pytest.mark.parametrize(("lengths", "group", "head_dim"), [((150, 33), 3, 72), ((300, 128, 1), 10, 40)])
def test_full_attention_beside_the_cpu(lengths, group, head_dim):
    """Both round probabilities by spans of 128 positions, which begin at multiples of 128."""
    case = Case(lengths, 2, group, head_dim, "int8")
    case.fill()
    parts = [(s, max(0, length - 40), length) for s, length in enumerate(lengths)]
    found = case.attend(*parts, causal=False, kernel=full_attention)
    wanted = case.wanted(*parts, causal=False)
    assert relative_error(found, wanted) < ERROR
    # a window, however wide, makes both round by blocks of 32, which is another result
    assert relative_error(case.attend(*parts, causal=False), wanted) > 10 * ERROR
    again = case.attend(*parts, causal=False, kernel=full_attention, room=1 << 20, multiprocessors=3)
    assert bytes_of(found) == bytes_of(again)


@pytest.mark.parametrize("where", ["k", "v"])
def test_what_is_no_number_spoils_all_of_its_sequence(where):
    case = Case([140, 9], 1, 2, 64, "int8")
    getattr(case, where)[0][35:36, 0:1, 3:4].fill_(math.nan)
    case.write((0, 0, 140), (1, 0, 9))
    found = case.attend((0, 133, 140), (1, 0, 9), causal=False, kernel=full_attention).tolist()
    assert [any(math.isnan(x) for head in token for x in head) for token in found] == [True] * 7 + [False] * 9
