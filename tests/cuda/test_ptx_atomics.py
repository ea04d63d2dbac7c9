"""atom and red: what is left in memory, and what each lane finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptx import MemoryFault, UnknownInstruction
from snippets import run

SHARED = ".shared .align 16 .b8 box[64];\n"
HEAD = """mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.u32 %r3, %r1, %r2, %r0;
    mul.wide.u32 %rd9, %r3, 8; add.s64 %rd10, %rd1, %rd9; add.s64 %rd11, %rd2, %rd9; ld.global.u64 %rd20, [%rd10];
    mul.wide.u32 %rd8, %r3, 4; add.s64 %rd12, %rd3, %rd8; ld.global.u32 %r9, [%rd12];"""


def atoms(kind, name, memory, values, places, block=64, extra=()):
    """Let lane n do an atomic operation on memory[places[n]] with values[n]; return what lanes found, as uint64."""
    wide = kind.endswith("64")
    nbytes = memory.dtype.itemsize
    given_values = np.zeros(len(values), "u8")
    given_values[:] = values if values.dtype.kind == "u" else values.view(f"u{nbytes}")
    found, more = np.zeros(len(values), "u8"), np.zeros(len(values), "u8")
    more[:] = extra if len(extra) else 0
    register = "%rd20" if wide else "%r20"
    narrow = "" if wide else "cvt.u32.u64 %r20, %rd20; cvt.u32.u64 %r21, %rd22;"
    third = (", %rd22" if wide else ", %r21") if len(extra) else ""
    code = f"""{HEAD} add.s64 %rd13, %rd4, %rd9; ld.global.u64 %rd22, [%rd13]; {narrow}
    mul.wide.u32 %rd14, %r9, {nbytes}; add.s64 %rd14, %rd0, %rd14;
    atom.global.{name}.{kind} {"%rd21" if wide else "%r22"}, [%rd14], {register}{third};
    {"" if wide else "cvt.u64.u32 %rd21, %r22;"} st.global.u64 [%rd11], %rd21;"""
    run(code, [memory, given_values, found, np.asarray(places, "u4"), more], block=block, grid=len(values) // block)
    return found


def lanes(seed, dtype, count=128, places=7):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, count * np.dtype(dtype).itemsize, "u1").view(dtype)
    return values, rng.integers(0, places, count), rng.integers(0, 50, places).astype(dtype)


OPERATIONS = {
    "add": lambda old, b: old + b,
    "min": min,
    "max": max,
    "and": lambda old, b: old & b,
    "or": lambda old, b: old | b,
    "xor": lambda old, b: old ^ b,
    "exch": lambda old, b: b,
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("places", [7, 1000])
def test_whole_numbers(kind, name, places):
    dtype = f"{'i' if kind[0] == 's' else 'u'}{int(kind[1:]) // 8}"
    values, where, memory = lanes(1, dtype, places=places)
    if name in ("and", "or", "xor", "exch"):
        kind = f"b{kind[1:]}"
    elif name == "add" and kind == "s64":
        kind = "u64"  # the only one that there is
    expected, old = memory.tolist(), []
    for value, place in zip(values.tolist(), where.tolist(), strict=True):
        old.append(expected[place])
        expected[place] = OPERATIONS[name](expected[place], value)
        expected[place] = int(np.array(expected[place] % 2 ** (8 * values.itemsize), f"u{values.itemsize}").view(dtype))
    found = atoms(kind, name, memory, values, where)
    assert memory.tolist() == expected
    assert found.astype(f"u{values.itemsize}").view(dtype).tolist() == old


def test_compare_and_swap():
    memory = np.zeros(3, "u4")
    where = np.arange(128) % 3
    found = atoms("b32", "cas", memory, np.repeat(np.arange(32, dtype="u4"), 4), where, extra=np.arange(128) + 1000)
    expected, old = [0, 0, 0], []
    for n in range(128):
        old.append(expected[n % 3])
        if expected[n % 3] == n // 4:
            expected[n % 3] = n + 1000
    assert memory.tolist() == expected and found.tolist() == old and memory.tolist() == [1000, 1001, 1002]


def test_counters_that_wrap_around():
    memory = np.array([3, 0], "u4")
    atoms("u32", "inc", memory, np.full(64, 5, "u4"), np.zeros(64, int))
    atoms("u32", "dec", memory, np.full(64, 5, "u4"), np.ones(64, int))
    assert memory.tolist() == [(3 + 64) % 6, 2]


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_float_sums_in_the_order_of_lanes(kind):
    dtype = f"f{int(kind[1:]) // 8}"
    values = np.random.default_rng(2).standard_normal(128).astype(dtype)
    where, memory = np.arange(128) % 5, np.zeros(5, dtype)
    found = atoms(kind, "add", memory, values, where)
    expected, old = np.zeros(5, dtype), []
    for n in range(128):
        old.append(float(expected[n % 5]))
        expected[n % 5] += values[n]
    assert memory.tolist() == expected.tolist()
    assert found.astype(f"u{values.itemsize}").view(dtype).tolist() == old


def test_tiny_sums_of_global_memory_are_zero():
    memory = np.array([1e-40], "f4")
    atoms("f32", "add", memory, np.full(64, 1e-40, "f4"), np.zeros(64, int))
    assert memory.tolist() == [0.0]


def test_two_halves():
    memory = np.array([1.0, 2.0], "f2")
    code = "mov.u32 %r1, 0x3c003800; red.global.add.noftz.f16x2 [%rd0], %r1;"
    run(code, [memory], block=6)
    assert memory.tolist() == [1 + 0.5 * 6, 2 + 6]
    with pytest.raises(UnknownInstruction, match=r"red.global.add.f16x2 is not implemented"):
        run(code.replace(".noftz", ""), [memory])


@given(st.lists(st.integers(0, 15), min_size=1, max_size=150), st.integers(1, 3))
def test_a_histogram_in_shared_memory(bins, blocks):
    data, y = np.array(bins, "u4"), np.zeros((blocks, 16), "u4")
    code = f"""mov.u32 %r0, %tid.x; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd9, %rd1, %rd9; mov.u32 %r8, box;
    setp.lt.u32 %p0, %r0, 16; mov.u32 %r1, 0; mad.lo.u32 %r2, %r0, 4, %r8; @%p0 st.shared.u32 [%r2], %r1; bar.sync 0;
    setp.ge.u32 %p1, %r0, {len(bins)}; @%p1 bra DONE;
    ld.global.u32 %r3, [%rd9]; mad.lo.u32 %r4, %r3, 4, %r8; red.shared.add.u32 [%r4], 1;
    DONE: bar.sync 0; @!%p0 exit; ld.shared.u32 %r5, [%r2]; mov.u32 %r6, %ctaid.x; mad.lo.u32 %r6, %r6, 16, %r0;
    mul.wide.u32 %rd8, %r6, 4; add.s64 %rd8, %rd0, %rd8; st.global.u32 [%rd8], %r5;"""
    run(code, [y, data], block=160, grid=blocks, before=SHARED)
    assert (y == np.bincount(data, minlength=16)).all()


def test_generic_addresses():
    code = """mov.u64 %rd1, box; cvta.shared.u64 %rd1, %rd1; mov.u32 %r0, %tid.x; and.b32 %r1, %r0, 1;
    setp.eq.u32 %p0, %r1, 0; selp.b64 %rd2, %rd0, %rd1, %p0; mov.u32 %r3, 5; setp.eq.u32 %p1, %r0, 0;
    @%p1 st.shared.u32 [box], %r3; bar.sync 0; atom.add.u32 %r2, [%rd2], 1; bar.sync 0; @!%p1 exit;
    ld.shared.u32 %r4, [box]; st.volatile.global.u32 [%rd0+4], %r4;"""
    for blocks in (1, 3):
        y = np.zeros(2, "u4")
        run(code, [y], block=50, before=SHARED, grid=blocks)
        assert y.tolist() == [25 * blocks, 30]


def test_atomic_operations_are_checked():
    with pytest.raises(MemoryFault, match=r"writes 4 bytes at .*: out of bounds"):
        run("red.global.add.u32 [%rd0+8], 1;", [np.zeros(2, "u4")])
    with pytest.raises(MemoryFault, match="that nobody wrote"):
        run("red.shared.add.u32 [box], 1;", before=SHARED)
    with pytest.raises(UnknownInstruction, match=r"atom.global.v2.f32.add is not implemented"):
        run("atom.global.v2.f32.add %f1, [%rd0], 1;", [np.zeros(2, "u4")])
