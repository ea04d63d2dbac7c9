"""The integer tiles by themselves: every way to multiply bytes gives the same bits, and nothing beside is written."""

import functools
import itertools
import math
import random
import re
import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding, ir
from numba import njit, types

from pio.kernels import _llvm as ll
from pio.kernels._formats import EXPONENT, FORMATS, PAIR, RECORD, START
from pio.kernels._jit import CONTRACT, OPTIONS
from pio.kernels._processor import compiles_for
from pio.kernels.quantized_tiles import DOT, quantized_tile
from pio.kernels.simd import JIT
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import packing, quantize
from pio.testing.reference import quantized_tiles as reference
from pio.testing.strategies import tensors, views

HERE = ["portable", "sdot"]  # sdot as its manual describes it, see below
if compiles_for("avx2"):
    HERE.append("avx2")
if compiles_for("avx512vnni") and compiles_for("avx512f"):
    HERE.append("vnni")


def sdot_by_hand(b, name, result, arguments):
    """What ``ll.function`` returns, but ARM's instruction as a function of plain LLVM code."""
    if "aarch64" not in name:
        return PLAIN(b, name, result, arguments)
    found = b.module.globals.get("sdot_by_hand")
    if found is None:
        found = ir.Function(b.module, ir.FunctionType(result, arguments), "sdot_by_hand")
        found.linkage = "internal"
        c = ir.IRBuilder(found.append_basic_block())
        out, x, y = found.args
        for lane, j in itertools.product(range(4), range(4)):
            index = ir.Constant(ll.I32, 4 * lane + j)
            product = c.mul(*(c.sext(c.extract_element(v, index), ll.I32) for v in (x, y)))
            at = ir.Constant(ll.I32, lane)
            out = c.insert_element(out, c.add(c.extract_element(out, at), product), at)
        c.ret(out)
    return found


PLAIN = ll.function


@functools.cache
def compiled(rows, dot, form):
    tile = quantized_tile(rows, dot)[form]

    @njit(**OPTIONS, fastmath=CONTRACT)
    def run(y, x, w, pairs, ldy, count, add):
        tile(y, x, w, pairs, ldy, count, add)

    if JIT:
        with pytest.MonkeyPatch.context() as patch:
            if dot == "sdot":
                patch.setattr(ll, "function", sdot_by_hand)
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


@pytest.mark.parametrize("rows", [1, 3])
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
        for part in (records(source, 3, pairs, form), block(source, pairs, form))
    )
    together, alone = Tensor.zeros((3, count)), Tensor.zeros((3, count))
    compiled(3, DOT, form.name)(together.address, x.address, w.address, pairs, count, count, 0)
    for r in range(3):
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


def assembly(dot, form, triple, cpu, features):
    """A tile of two rows, compiled for another processor."""
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ll.I64] * 7), "tile")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    _, emit = quantized_tile(2, dot)[form]._defn(None, *[types.int64] * 7)
    emit(SimpleNamespace(get_dummy_value=lambda: None), b, None, function.args)
    b.ret_void()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    return machine.emit_assembly(parsed)


@pytest.mark.skipif(not JIT, reason="there is no code to look at")
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("dot", "triple", "cpu", "features", "instruction", "per_vector"),
    [
        ("sdot", "aarch64-linux-gnu", "generic", "+dotprod", r"\bsdot\s+v\d+\.4s, v\d+\.16b", 4),
        ("vnni", "x86_64-linux-gnu", "cascadelake", "", r"\bvpdpbusd\s.*%zmm\d+$", 1),
        ("avx2", "x86_64-linux-gnu", "haswell", "", r"\bvpmaddwd\s.*%ymm\d+$", 2),
    ],
)
def test_each_variant_is_its_processor_s_own_instruction(form, dot, triple, cpu, features, instruction, per_vector):
    code = assembly(dot, form.name, triple, cpu, features)
    found = len(re.findall(instruction, code, re.MULTILINE))
    # two groups of eight vectors of four inputs times sixteen outputs, for each of two rows
    assert found >= 2 * 8 * 2 * per_vector


@pytest.mark.skipif(not JIT, reason="there is no code to look at")
@pytest.mark.parametrize("form", FORMATS)
def test_the_portable_variant_compiles_anywhere(form):
    for triple, cpu in (("aarch64-linux-gnu", "generic"), ("x86_64-linux-gnu", "x86-64")):
        assert "tile" in assembly("portable", form, triple, cpu, "")
