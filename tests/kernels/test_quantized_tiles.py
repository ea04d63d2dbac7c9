"""The integer tiles by themselves: every way to multiply bytes gives the same bits, and nothing beside is written."""

import functools
import math
import random
import struct

import pytest
from arm_by_hand import by_hand
from hypothesis import given
from hypothesis import strategies as st
from numba import njit, types

from pio.kernels._formats import EXPONENT, FORMATS, PAIR, RECORD, START
from pio.kernels._jit import CONTRACT, OPTIONS
from pio.kernels._processor import compiles_for
from pio.kernels._quarters import ARM
from pio.kernels.quantized_tiles import DOT, paired_tile, quantized_tile
from pio.kernels.simd import JIT
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import packing, quantize
from pio.testing.reference import quantized_tiles as reference
from pio.testing.strategies import tensors, views

HERE = ["portable", *ARM]
if compiles_for("avx2"):
    HERE.append("avx2")
if compiles_for("avx512vnni") and compiles_for("avx512f"):
    HERE.append("vnni")


@functools.cache
def compiled(rows, dot, form):
    tile = quantized_tile(rows, dot)[form]

    @njit(**OPTIONS, fastmath=CONTRACT)
    def run(y, x, w, pairs, ldy, count, add):
        tile(y, x, w, pairs, ldy, count, add)

    if JIT:
        with by_hand(dot):
            run.compile((types.int64,) * 7)
    return run


def records(source, rows, pairs, form, extreme=False):
    """Random quantized activations, bytes."""
    out = b""
    for place in range(rows * (pairs + 1)):
        if place % (pairs + 1) == 0:
            out += struct.pack("<f12s", 0.0, b"padding here")
            continue
        if extreme:
            numbers = [source.choice((-127, 127)) for _ in range(PAIR)] if source.random() < 0.5 else [127] * PAIR
        else:
            numbers = [source.randint(-127, 127) for _ in range(PAIR)]
        exponents = [source.randint(-10, 1) for _ in range(2)]
        totals = [sum(numbers[:32]), sum(numbers[32:])]
        out += struct.pack("<64b2i", *numbers, *(e << EXPONENT for e in exponents))
        if form.minima:
            out += struct.pack("<2f", *map(math.ldexp, totals, exponents))
        else:
            out += struct.pack("<2i", *(-form.offset * t for t in totals))
    return out


def block(source, pairs, form, extreme=False):
    """A random block of 16 outputs, bytes."""
    out = b""
    for _ in range(pairs):
        halves = form.header_bytes // 2
        out += struct.pack(f"<{halves}e", *(source.uniform(-2.0, 2.0) for _ in range(halves)))
        numbers = form.pair_bytes - form.header_bytes
        out += b"\xff" * numbers if extreme else source.randbytes(numbers)
    return out


def decoded(x, w, rows, pairs, form):
    """Records and block as the twin takes them."""
    size = START + pairs * RECORD
    read = [quantize.read_records(x[r * size : (r + 1) * size], form.offset, form.minima)[1] for r in range(rows)]
    left = [[(g.scale, g.numbers) for g in row] for row in read]
    weights = packing.unpack(w, 16, pairs * PAIR, form.name)
    right = [[(g.scale, g.minimum, [q - g.offset for q in g.stored]) for g in row] for row in weights]
    return left, right


def around(view, before):
    """What surrounds a view: its wider tensor as bytes, with the view's elements put back as they were."""
    after = view.clone()
    view.copy_(before)
    wide = view.storage.memoryview().tobytes()
    view.copy_(after)
    return wide


@pytest.mark.parametrize("rows", [1, 3, 4])  # on ARM one, an odd number and an even one are done in three ways
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@given(data=st.data(), pairs=st.integers(0, 4), count=st.integers(1, 16), add=st.booleans(), extreme=st.booleans())
def test_every_variant_is_the_same_to_the_bit(rows, form, data, pairs, count, add, extreme):
    source = random.Random(data.draw(st.integers(0, 999)))
    x, w = records(source, rows, pairs, form, extreme), block(source, pairs, form, extreme)
    at_x, at_w = (Tensor.from_buffer(bytearray(b"-" + part), "uint8")[1:] for part in (x, w))  # odd addresses too
    y = data.draw(views(data.draw(tensors((rows, count)))))
    before, wide = y.clone(), y.storage.memoryview().tobytes()
    found = {}
    for dot in HERE:
        y.copy_(before)
        compiled(rows, dot, form.name)(y.address, at_x.address, at_w.address, pairs, y.strides[0], count, int(add))
        assert around(y, before) == wide
        found[dot] = bits(y)
    assert len(set(found.values())) == 1, {dot: found[dot] == found["portable"] for dot in HERE}
    left, right = decoded(x, w, rows, pairs, form)
    expected, slack = reference.tile(left, right[:count]), reference.magnitudes(left, right[:count])
    for r, row in enumerate(before.tolist() if add else []):
        expected[r] = [a + b for a, b in zip(expected[r], row, strict=True)]
        slack[r] = [a + abs(b) for a, b in zip(slack[r], row, strict=True)]
    assert_close(y, expected, absolute=[[1e-6 * v for v in row] for row in slack])


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@given(seed=st.integers(0, 999), pairs=st.integers(1, 4), count=st.integers(1, 16))
def test_a_row_has_the_same_bits_in_every_tile(form, seed, pairs, count):
    source = random.Random(seed)
    x, w = (
        Tensor.from_buffer(bytearray(part), "uint8")
        for part in (records(source, 4, pairs, form), block(source, pairs, form))
    )
    together, alone = Tensor.zeros((4, count)), Tensor.zeros((4, count))
    compiled(4, DOT, form.name)(together.address, x.address, w.address, pairs, count, count, 0)
    for r in range(4):
        at = x.address + r * (START + pairs * RECORD)
        compiled(1, DOT, form.name)(alone[r].address, at, w.address, pairs, count, count, 0)
    assert bits(together) == bits(alone)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_start_that_is_not_finite_reaches_every_output_of_its_row(form, bad):
    source, form = random.Random(7), FORMATS[form]
    x = bytearray(records(source, 3, 2, form))
    struct.pack_into("<f", x, START + 2 * RECORD, bad)  # of the middle row
    w = block(source, 2, form)
    for dot in HERE:
        y = Tensor.zeros((3, 16))
        at_x, at_w = (Tensor.from_buffer(bytearray(part), "uint8") for part in (x, w))
        compiled(3, dot, form.name)(y.address, at_x.address, at_w.address, 2, 16, 16, 0)
        first, middle, last = y.tolist()
        assert all(map(math.isfinite, first + last)) and not any(map(math.isfinite, middle))


@functools.cache
def compiled_pair(rows, dot, form):
    tile = paired_tile(rows, dot)[form]

    @njit(**OPTIONS, fastmath=CONTRACT)
    def run(y, x, w, pairs, ldy, count, add, ahead, share):
        tile(y, x, w, pairs, ldy, count, add, ahead, share)

    if JIT:
        run.compile((types.int64,) * 9)
    return run


@pytest.mark.parametrize("rows", [4, 6])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@given(data=st.data(), pairs=st.integers(0, 4), count=st.integers(17, 32), add=st.booleans(), extreme=st.booleans())
def test_two_blocks_at_once_are_one_after_the_other_to_the_bit(rows, form, data, pairs, count, add, extreme):
    source = random.Random(data.draw(st.integers(0, 999)))
    x = records(source, rows, pairs, form, extreme)
    w = block(source, pairs, form, extreme) + block(source, pairs, form)
    at_x, at_w = (Tensor.from_buffer(bytearray(b"-" + part), "uint8")[1:] for part in (x, w))
    y = data.draw(views(data.draw(tensors((rows, count)))))
    before, wide = y.clone(), y.storage.memoryview().tobytes()
    for i, outputs in enumerate((16, count - 16)):
        place, at = y.address + 64 * i, at_w.address + i * pairs * form.pair_bytes
        compiled(rows, "portable", form.name)(place, at_x.address, at, pairs, y.strides[0], outputs, int(add))
    expected = bits(y)
    ahead, share = data.draw(st.sampled_from(((at_w.address, 64), (0, 192), (0, 0))))  # any address will do
    for dot in (dot for dot in HERE if dot not in ARM):
        y.copy_(before)
        run = compiled_pair(rows, dot, form.name)
        run(y.address, at_x.address, at_w.address, pairs, y.strides[0], count, int(add), ahead, share)
        assert around(y, before) == wide
        assert bits(y) == expected, dot
