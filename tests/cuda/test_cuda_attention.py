"""Attention on a GPU beside the CPU's and its definition."""

from itertools import pairwise

import pytest
from attention_case import Case, FarCase
from gpu_case import bytes_of, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from pio.kernels import sizes
from pio.kernels.cuda._runs import first_of, run_of
from pio.kernels.cuda._stretches import STRETCH
from pio.ops.attention import gpu_scratch_shape
from pio.testing.reference.attention import attention
from pio.testing.strategies import FLOATS

ERRORS = {"float32": 1e-5, "float16": 3e-6, "bfloat16": 1e-5}


@pytest.mark.parametrize("format", FLOATS)
@settings(max_examples=6)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=3), kv_heads=st.integers(1, 3),
    head_dim=st.integers(1, 150),
)  # fmt: skip
def test_write_cache(format, lengths, kv_heads, head_dim):
    wanted, found = Case(lengths, kv_heads, 1, head_dim, format), Case(lengths, kv_heads, 1, head_dim, format)
    wanted.fill()
    found.write(*[(s, 0, length) for s, length in enumerate(lengths)])
    assert bytes_of(found.keys) == bytes_of(wanted.keys)
    assert bytes_of(found.values) == bytes_of(wanted.values)


@pytest.mark.parametrize("format", FLOATS)
@settings(max_examples=6)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=3), kv_heads=st.integers(1, 2), group=st.integers(1, 9),
    head_dim=st.one_of(st.sampled_from([64, 128]), st.integers(1, 150)), window=st.integers(0, 40), data=st.data(),
    causal=st.booleans(),
)  # fmt: skip
def test_beside_the_cpu(format, lengths, kv_heads, group, head_dim, window, causal, data):
    case = Case(lengths, kv_heads, group, head_dim, format, seed=data.draw(st.integers(1, 99)))
    case.fill()
    parts = [(s, max(0, length - data.draw(st.integers(1, 9))), length) for s, length in enumerate(lengths)]
    found = case.attend(*parts, causal=causal, window=window)
    assert relative_error(found, case.wanted(*parts, causal=causal, window=window)) < ERRORS[format]


@pytest.mark.parametrize("format", FLOATS)
@pytest.mark.parametrize(("group", "head_dim", "window"), [(3, 64, 0), (16, 80, 0), (2, 128, 300), (1, 272, 0)])
def test_stretches_of_several_blocks_are_those_of_one(format, group, head_dim, window):
    length = 523
    case = Case([length, 41, 270], 2, group, head_dim, format)
    case.fill()
    parts = [(0, length - 2, length), (1, 30, 41), (2, 269, 270)]
    alone = case.attend(*parts, window=window)
    assert relative_error(alone, case.wanted(*parts, window=window)) < ERRORS[format]
    for room, multiprocessors in ((1 << 20, 3), (60_000, 1)):
        split = case.attend(*parts, window=window, room=room, multiprocessors=multiprocessors)
        assert bytes_of(split) == bytes_of(alone)


@pytest.mark.parametrize("format", ["float32", "bfloat16"])
def test_a_prompt_cut_anywhere_gives_the_same_bits(format):
    length, cuts = 301, (0, 1, 17, 260, 300, 301)
    case = Case([length], 1, 3, 64, format)
    case.fill()
    whole = case.attend((0, 0, length), multiprocessors=4)
    assert relative_error(whole, case.wanted((0, 0, length))) < ERRORS[format]
    for first, last in pairwise(cuts):
        part = case.attend((0, first, last), room=1 << 20, multiprocessors=2)
        assert bytes_of(part) == bytes_of(whole[first:last].clone())


def test_by_its_definition():
    case = Case([77], 2, 2, 48, "float32")
    case.fill()
    wanted = attention(case.q[0][70:].tolist(), case.k[0].tolist(), case.v[0].tolist(), window=33)
    found = case.attend((0, 70, 77), window=33)
    assert relative_error(found, [x for token in wanted for head in token for x in head]) < 1e-5


def test_runs_follow_each_other():
    at, found = 0, []
    for run in range(200):
        assert first_of.py_func(run) == at and run_of.py_func(at) == run
        at = first_of.py_func(run + 1)
        assert run_of.py_func(at - 1) == run
        found.append(at - first_of.py_func(run))
    assert sorted(set(found)) == [1, 2, 4, 8] and found == sorted(found)


@pytest.mark.parametrize("multiprocessors", [1, 28, 132])
def test_scratch_holds_a_split_sequence_of_any_length(multiprocessors):
    """262,144 positions of eight key/value heads of 256 with up to sixteen queries each, in no more than 100 MB."""
    parts, floats = gpu_scratch_shape(sizes.GPU_ROWS, 256, multiprocessors)
    blocks = sizes.GPU_COUNTERS + sizes.GPU_BLOCKS * multiprocessors * sizes.GPU_ROWS * 258
    runs = run_of.py_func((262_144 - 1) // STRETCH) + 1
    assert blocks + runs * 8 * 16 * 258 <= parts * floats <= 25_000_000


LONG = [(8_500, 0, "bfloat16"), (33_551, 2_100, "float16"), (262_144, 2_500, "bfloat16"), (33_551, 4_000, "int8")]


@pytest.mark.parametrize(("length", "window", "format"), LONG)
def test_long_sequences_have_the_same_bits_however_they_are_split(length, window, format):
    """Runs of one, two, four and eight stretches, whole and cut by a window, by one block and by several."""
    case = FarCase(length, 2, 3, 256 if window == 2_500 else 24, format)
    part = (0, length - 6, length)
    alone = case.attend(part, window=window)
    assert relative_error(alone, case.wanted(part, window=window)) < ERRORS.get(format, 2e-4)
    split = case.attend(part, window=window, room=8 << 20, multiprocessors=3)
    assert bytes_of(split) == bytes_of(alone)
    cut = [case.attend((0, length - 6 + a, length - 6 + b), window=window, room=8 << 20) for a, b in ((0, 1), (1, 6))]
    assert b"".join(map(bytes_of, cut)) == bytes_of(alone)
