"""Tiles that sum values: every way to multiply gives the same bits, and a naive loop the same numbers."""

import ctypes
import functools
import random

import pytest
from arm_by_hand import by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit, types

from pio.kernels._jit import CONTRACT, OPTIONS
from pio.kernels._processor import compiles_for
from pio.kernels._quarters import ARM
from pio.kernels.quantized_tiles import DOT, DOTS
from pio.kernels.simd import JIT
from pio.kernels.sizes import BLOCK, CHANCE, SPAN, SPAN_CHANCE
from pio.kernels.values_tiles import span_tile, values_tile
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.strategies import numbers

HERE = ["portable", *ARM, *(["avx2"] if compiles_for("avx2") else [])]
if DOT not in HERE:
    HERE.append(DOT)
WIDTHS = st.sampled_from((16, 48, 160))


@functools.cache
def compiled(make, arguments, rows, dot):
    tile = make(rows, dot)
    if arguments == 4:

        @njit(**OPTIONS, fastmath=CONTRACT)
        def run(acc, p, v, width):
            tile(acc, p, v, width)

    else:

        @njit(**OPTIONS, fastmath=CONTRACT)
        def run(acc, p, addresses, blocks, width):
            tile(acc, p, addresses, blocks, width)

    if JIT:
        with by_hand(dot):
            run.compile((types.int64,) * arguments)
    return run


class Numbers:
    """Probabilities of some rows, values of some blocks, and what is summed so far."""

    def __init__(self, draw, rows, blocks, width, extreme):
        source = random.Random(draw(st.integers(0, 999)))
        sign = source.choice((-128, 127))  # stale bytes reach -128
        self.rows, self.width = rows, width
        self.chances = [
            [127 if extreme else source.randint(0, 127) for _ in range(BLOCK * blocks)] for _ in range(rows)
        ]
        self.values = [
            [sign if extreme else source.randint(-128, 127) for _ in range(width)] for _ in range(BLOCK * blocks)
        ]
        self.scales, self.left = ([ctypes.c_float(source.uniform(0.001, 3.0)).value for _ in range(rows)] for _ in "sl")
        self.start = draw(numbers(rows * width))

    def packed_chances(self, stride):
        """Rows as tiles read them: the scale, and what is left, sixteen bytes before the end of each."""
        packed = b""
        for row, scale, left in zip(self.chances, self.scales, self.left, strict=True):
            behind = bytes((ctypes.c_float * 2)(scale, left)) + b"-" * 8
            packed += bytes(row) + b"-" * (stride - 16 - len(row)) + behind
        return Tensor.from_buffer(bytearray(packed), "uint8")

    def packed_values(self, block):
        rows = self.values[BLOCK * block : BLOCK * (block + 1)]
        raw = bytes(rows[4 * four + j][d] & 255 for four in range(8) for d in range(self.width) for j in range(4))
        return Tensor.from_buffer(bytearray(raw), "uint8")

    def check(self, runs, left):
        """Run all of them, which must agree to the bit, and with a naive loop about."""
        found = {}
        for dot, run in runs.items():
            acc = Tensor.from_list([7.0, *self.start, 7.0])
            run(acc[1:].address)
            assert (acc[0].item(), acc[-1].item()) == (7.0, 7.0)
            found[dot] = bits(acc)
        assert len(set(found.values())) == 1
        before = Tensor.from_list(self.start).tolist()
        for r in range(self.rows):
            for d in range(self.width):
                dots = sum(c * row[d] for c, row in zip(self.chances[r], self.values, strict=True))
                old, new = left[r] * before[r * self.width + d], self.scales[r] * dots
                assert abs(acc[1 + r * self.width + d].item() - old - new) <= 2e-7 * (abs(old) + abs(new)) + 1e-44


@pytest.mark.parametrize("rows", [1, 3, 4])
@settings(max_examples=40 if JIT else 3)
@given(data=st.data(), width=WIDTHS, extreme=st.booleans())
def test_every_variant_of_the_values_tile_is_the_same_to_the_bit(rows, data, width, extreme):
    assert set(HERE) <= {*DOTS, *ARM}
    n = Numbers(data.draw, rows, 1, width, extreme)
    p, v = n.packed_chances(CHANCE), n.packed_values(0)
    tiles = {dot: compiled(values_tile, 4, rows, dot) for dot in HERE}
    runs = {dot: lambda acc, run=run: run(acc, p.address, v.address, width) for dot, run in tiles.items()}
    n.check(runs, [1.0] * rows)


@pytest.mark.parametrize("rows", [1, 3, 4])
@settings(max_examples=40 if JIT else 3)
@given(data=st.data(), blocks=st.integers(1, SPAN), width=WIDTHS, extreme=st.booleans())
def test_every_variant_of_the_span_tile_is_the_same_to_the_bit(rows, data, blocks, width, extreme):
    n = Numbers(data.draw, rows, blocks, width, extreme)
    p, values = n.packed_chances(SPAN_CHANCE), [n.packed_values(i) for i in range(blocks)]
    addresses = Tensor.from_list([v.address for v in values], "int64")
    tiles = {dot: compiled(span_tile, 5, rows, dot) for dot in HERE}
    runs = {
        dot: lambda acc, run=run: run(acc, p.address, addresses.address, blocks, width) for dot, run in tiles.items()
    }
    n.check(runs, n.left)
