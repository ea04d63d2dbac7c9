"""The tiles of AMX: the same bits as all others, and nothing beside is written."""

import functools
import math
import random
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit, types
from test_quantized_tiles import block, records
from test_quantized_tiles import compiled as usual
from test_values_tiles import Numbers
from test_values_tiles import compiled as usual_values

from pio.kernels import _amx_attention as attention
from pio.kernels import _amx_linear as linear
from pio.kernels import _amx_tile as tiles
from pio.kernels import quantized_linear
from pio.kernels._formats import FORMATS, RECORD, START
from pio.kernels._jit import CONTRACT, OPTIONS
from pio.kernels._processor import AMX, DOT
from pio.kernels._settings import PLAIN
from pio.kernels.simd import JIT
from pio.kernels.sizes import BLOCK, CHANCE, ROWS, SPAN, SPAN_CHANCE
from pio.kernels.values_tiles import span_tile, values_tile
from pio.tensor import Tensor
from pio.testing.compare import bits

needs_amx = pytest.mark.skipif(JIT and not AMX, reason="this processor has no AMX, or the system does not allow it")
EXAMPLES = 30 if JIT else 2
INT = types.int64


def built(function, arguments):
    made = njit(**OPTIONS, fastmath=CONTRACT)(function)
    if JIT:
        made.compile((INT,) * arguments)
    return made


def memory(raw, ahead=0):
    """Bytes at an address that is a multiple of 64, and ``ahead`` more; the tensor keeps them."""
    whole = Tensor.from_buffer(bytearray(64 + ahead + len(raw)), "uint8")
    first = -whole.address % 64 + ahead
    found = whole[first : first + len(raw)]
    if raw:
        found.copy_(Tensor.from_buffer(bytearray(raw), "uint8"))
    return found


@functools.cache
def tiled(form):
    multiply = linear.multiply_tiles[form]

    def run(y, x, w, first, last, rows, n, pairs, ldy, add):
        return multiply(y, x, w, first, last, rows, n, pairs, ldy, add)

    return built(run, 10)


@needs_amx
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@settings(max_examples=EXAMPLES)
@given(data=st.data(), pairs=st.integers(1, 4), add=st.booleans(), extreme=st.booleans())
def test_rows_by_sixteen_have_the_bits_of_every_other_tile(form, data, pairs, add, extreme):
    source = random.Random(data.draw(st.integers(0, 999)))
    rows, n = data.draw(st.integers(0, 52 if JIT else 33)), data.draw(st.integers(1, 150 if JIT else 40))
    blocks, ldy = -(-n // 16), n + data.draw(st.integers(0, 5))
    x, w = (
        records(source, rows, pairs, form, extreme),
        b"".join(block(source, pairs, form, extreme) for _ in range(blocks)),
    )
    x = bytearray(x)
    if rows > 2:
        struct.pack_into("<f", x, START + pairs * RECORD, math.nan)  # of the second row
    at_x, at_w = memory(bytes(x), 1), memory(w, 3)
    before = [source.uniform(-9.0, 9.0) for _ in range((rows + 1) * ldy)]
    found, expected = Tensor.from_list(before), Tensor.from_list(before)
    first = data.draw(st.integers(0, blocks - 1))
    last = data.draw(st.integers(first, blocks))
    done = tiled(form.name)(found.address, at_x.address, at_w.address, first, last, rows, n, pairs, ldy, int(add))
    worth = rows >= linear.LEAST and last - first > 1
    assert done == (rows // tiles.HEIGHT * tiles.HEIGHT if worth else 0)
    row, size, one = START + pairs * RECORD, pairs * form.pair_bytes, usual(1, DOT, form.name)
    for r in range(done):
        for c in range(first, last):
            place, count = expected.address + 4 * (r * ldy + 16 * c), min(16, n - 16 * c)
            one(place, at_x.address + r * row, at_w.address + c * size, pairs, ldy, count, int(add))
    assert bits(found) == bits(expected)


@needs_amx
@pytest.mark.skipif(not JIT, reason="more arithmetic than the interpreter does in a minute")
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_more_rows_and_pairs_than_are_taken_at_once(form):
    source = random.Random(3)
    rows, pairs, n = linear.MOST + 29, 2 * linear.DEPTH + 3, 3 * 16 + 5
    blocks = -(-n // 16)
    x, w = records(source, rows, pairs, form), b"".join(block(source, pairs, form) for _ in range(blocks))
    at_x, at_w = memory(x, 1), memory(w, 3)
    found, expected = Tensor.full((rows, n), 0.5), Tensor.full((rows, n), 0.5)
    done = tiled(form.name)(found.address, at_x.address, at_w.address, 0, blocks, rows, n, pairs, n, 1)
    row, size, one = START + pairs * RECORD, pairs * form.pair_bytes, usual(1, DOT, form.name)
    for r in range(done):
        for c in range(blocks):
            place, count = expected.address + 4 * (r * n + 16 * c), min(16, n - 16 * c)
            one(place, at_x.address + r * row, at_w.address + c * size, pairs, n, count, 1)
    assert rows - done == (rows % tiles.HEIGHT) and bits(found) == bits(expected)


@functools.cache
def sixteen_scores(line):
    tile, start = attention.scores_tile(line), attention.start_scores
    begin, end = attention.begin_sixteen, attention.end_sixteen

    def run(scores, q, addresses, starts, blocks, pairs):
        begin()
        start(starts, q, pairs)
        tile(scores, q, addresses, starts, blocks, pairs)
        end()

    return built(run, 6)


@needs_amx
@settings(max_examples=EXAMPLES)
@given(data=st.data(), pairs=st.integers(1, 3), blocks=st.integers(1, SPAN), wide=st.booleans(), extreme=st.booleans())
def test_scores_of_sixteen_queries_have_the_bits_of_every_other_tile(data, pairs, blocks, wide, extreme):
    source, form = random.Random(data.draw(st.integers(0, 999))), FORMATS["int8"]
    blocks = blocks if wide and JIT else 1
    line = 4 * BLOCK * (SPAN if wide else 1)
    q = bytearray(records(source, ROWS, pairs, form, extreme))
    struct.pack_into("<f", q, 3 * (START + pairs * RECORD), math.nan)
    halves = [block(source, pairs, form, extreme) for _ in range(2 * blocks)]
    keys = [memory(halves[2 * i] + halves[2 * i + 1], 1 + i) for i in range(blocks)]
    at_q, addresses = memory(bytes(q), 5), Tensor.from_list([k.address for k in keys], "int64")
    starts = memory(bytes(pairs * attention.TILE_STARTS))
    found, expected = Tensor.full((ROWS, line // 4), 0.5), Tensor.full((ROWS, line // 4), 0.5)
    sixteen_scores(line)(found.address, at_q.address, addresses.address, starts.address, blocks, pairs)
    one = usual(1, DOT, "int8")
    for i in range(2 * blocks):
        at_keys = keys[i // 2].address + i % 2 * pairs * form.pair_bytes
        for r in range(ROWS):
            at = at_q.address + r * (START + pairs * RECORD)
            one(expected[r].address + 64 * i, at, at_keys, pairs, line // 4, 16, 0)
    assert bits(found) == bits(expected)


@functools.cache
def sixteen_values(blocks, chance, shrinks):
    tile = attention.weighted_tile(blocks, chance, shrinks=shrinks)
    begin, end = attention.begin_sixteen, attention.end_sixteen

    def run(acc, p, addresses, count, width):
        begin()
        tile(acc, p, addresses, count, width)
        end()

    return built(run, 5)


@needs_amx
@settings(max_examples=EXAMPLES)
@given(
    data=st.data(),
    span=st.booleans(),
    blocks=st.integers(1, SPAN),
    width=st.sampled_from((16, 48)),
    extreme=st.booleans(),
)
def test_values_for_sixteen_queries_have_the_bits_of_every_other_tile(data, span, blocks, width, extreme):
    blocks = blocks if span else 1
    n = Numbers(data.draw, ROWS, blocks, width, extreme)
    chance = SPAN_CHANCE if span else CHANCE
    p, values = n.packed_chances(chance), [n.packed_values(i) for i in range(blocks)]
    at = Tensor.from_list([v.address for v in values], "int64")
    run = sixteen_values(SPAN if span else 1, chance, span)
    found, expected = (Tensor.from_list([7.0, *n.start, 7.0]) for _ in range(2))
    run(found[1:].address, p.address, at.address, blocks, width)
    one = usual_values(*((span_tile, 5) if span else (values_tile, 4)), 1, DOT)
    for r in range(ROWS):
        place, chances = expected[1 + r * width :].address, p.address + r * chance
        if span:
            one(place, chances, at.address, blocks, width)
        else:
            one(place, chances, values[0].address, width)
    assert bits(found) == bits(expected)


@pytest.mark.skipif(not JIT, reason="there is no code to look at")
@pytest.mark.parametrize("has", [True, False])
def test_without_amx_kernels_have_none_of_its_instructions(monkeypatch, has):
    if has and not AMX:
        pytest.skip("this processor has no AMX, or the system does not allow it")
    monkeypatch.setattr(quantized_linear, "AMX", has)
    made = quantized_linear.quantized_columns._make("int4")
    made = made if PLAIN else made.dispatcher  # with bounds checks the kernel is what Numba compiles
    made.compile((INT,) * 11)
    assert ("llvm.x86.tdpbssd" in made.inspect_llvm(made.signatures[0])) is has


@needs_amx
@pytest.mark.skipif(not JIT, reason="in the interpreter one thread computes at a time")
def test_threads_that_find_no_memory_left_leave_all_rows_to_others():
    form = FORMATS["int4"]
    multiply, take, leave = linear.multiply_tiles[form.name], linear.take_place, linear.leave_place

    def run(y, x, w, rows):
        first, taken = take(), 1
        while take() != 0:
            taken += 1
        refused = multiply(y, x, w, 0, 2, rows, 32, 1, 32, 0)
        leave(first)
        return (taken * 1000 + refused) * 1000 + multiply(y, x, w, 0, 2, rows, 32, 1, 32, 0)

    source, rows = random.Random(5), 2 * tiles.HEIGHT
    x, w = memory(records(source, rows, 1, form)), memory(block(source, 1, form) + block(source, 1, form))
    y = Tensor.zeros((rows, 32))
    assert built(run, 4)(y.address, x.address, w.address, rows) == linear.PLACES * 1000 * 1000 + rows


@needs_amx
@pytest.mark.skipif(not JIT, reason="the interpreter needs more")
def test_a_thread_with_a_small_stack_has_room_enough():
    code = """
import threading
from pio import ops
from pio.device import Device
from pio.tensor import Tensor
packed, x = ops.pack(Tensor.full((128, 256), 0.5), "int4"), Tensor.full((64, 256), 1.0).to(Device("cpu", 1))
expected = ops.quantized_linear(x, packed).tolist()
threading.stack_size(64 << 10)
thread = threading.Thread(target=lambda: print(ops.quantized_linear(x, packed).tolist() == expected))
thread.start()
thread.join()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"
