"""mma.sync, ldmatrix, stmatrix and movmatrix, against the layouts of NVIDIA's manual, element by element."""

from __future__ import annotations

import math

import numpy as np
import pytest
from exact import value
from ptx import BarrierFault, MemoryFault, UnknownInstruction
from snippets import run
from test_ptx_conversions import eight_bits

WARPS = 3


def a_place(bits, lane, i):
    """Row and column of element i of the left factor."""
    group, member = lane // 4, lane % 4
    if bits == 16:
        row = group if i < 2 or 4 <= i < 6 else group + 8
        return row, member * 2 + (i & 1) + (8 if i >= 4 else 0)
    if bits == 32:
        return (group if i in (0, 2) else group + 8), member + (4 if i >= 2 else 0)
    row = group if i < 4 or 8 <= i < 12 else group + 8
    return row, member * 4 + (i & 3) + (16 if i >= 8 else 0)


def b_place(bits, lane, i):
    group, member = lane // 4, lane % 4
    if bits == 16:
        return member * 2 + (i & 1) + (8 if i >= 2 else 0), group
    if bits == 32:
        return member + (4 if i >= 1 else 0), group
    return member * 4 + (i & 3) + (16 if i >= 4 else 0), group


def c_place(lane, i):
    return lane // 4 + (8 if i >= 2 else 0), lane % 4 * 2 + (i & 1)


def packed(matrices, place, bits, count):
    """Spread matrices (of bit patterns) over lanes as words, [warps, 32, registers]."""
    words = np.zeros((len(matrices), 32, count * bits // 32), "u4")
    for warp, matrix in enumerate(matrices):
        for lane in range(32):
            for i in range(count):
                row, column = place(bits, lane, i)
                words[warp, lane, i * bits // 32] |= np.uint32(int(matrix[row, column]) << i * bits % 32)
    return words


def loads(register, count, pointer):
    lines = [f"mad.lo.u32 %r59, %r0, {4 * count}, 0; cvt.u64.u32 %rd50, %r59; add.s64 %rd50, {pointer}, %rd50;"]
    lines += [f"ld.global.u32 %r{register + n}, [%rd50+{4 * n}];" for n in range(count)]
    return "\n".join(lines)


def group(register, count):
    return "{" + ", ".join(f"%r{register + n}" for n in range(count)) + "}"


def multiply(opcode, a, b, c, block=32 * WARPS):
    """Run an mma on words of lanes; return the words of the result."""
    y = np.zeros_like(c)
    counts = [x.shape[2] for x in (a, b, c)]
    code = "mov.u32 %r0, %tid.x;" + loads(10, counts[0], "%rd0") + loads(20, counts[1], "%rd1")
    code += loads(30, counts[2], "%rd2")
    code += f"{opcode} {group(40, counts[2])}, {group(10, counts[0])}, {group(20, counts[1])}, {group(30, counts[2])};"
    code += f"mad.lo.u32 %r59, %r0, {4 * counts[2]}, 0; cvt.u64.u32 %rd50, %r59; add.s64 %rd50, %rd3, %rd50;"
    code += "".join(f"st.global.u32 [%rd50+{4 * n}], %r{40 + n};" for n in range(counts[2]))
    run(code, [a, b, c, y], block=block)
    return y


def patterns(kind, shape, seed):
    """Return bit patterns of ordinary numbers of a format, and what they stand for as doubles."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype("f4")
    if kind == "f16":
        bits = x.astype("f2").view("u2")
        return bits, np.vectorize(lambda n: float(value(int(n), "f16")))(bits)
    if kind == "bf16":
        bits = (x.view("u4") >> 16).astype("u2")
        return bits, np.vectorize(lambda n: float(value(int(n), "bf16")))(bits)
    if kind == "tf32":
        bits = x.view("u4")  # the lower 13 bits have no effect
        return bits, np.vectorize(lambda n: float(value(int(n) & ~0x1FFF, "f32")))(bits)
    bits = rng.integers(0, 256, shape, "u1")
    if kind in ("e4m3", "e5m2"):
        bits &= 0xBB  # no infinity and no NaN
        return bits, np.array(eight_bits(kind))[bits]
    return bits, (bits.view("i1") if kind == "s8" else bits).astype("f8")


FLOATS = [
    ("m16n8k16", "f16", "f16", 16, 16),
    ("m16n8k16", "bf16", "bf16", 16, 16),
    ("m16n8k8", "f16", "f16", 16, 8),
    ("m16n8k8", "bf16", "bf16", 16, 8),
    ("m16n8k8", "tf32", "tf32", 32, 8),
    ("m16n8k4", "tf32", "tf32", 32, 4),
    ("m16n8k32", "e4m3", "e5m2", 8, 32),
]


@pytest.mark.parametrize(("shape", "first", "second", "bits", "depth"), FLOATS)
def test_products_of_floats(shape, first, second, bits, depth):
    a, x = patterns(first, (WARPS, 16, depth), 1)
    b, y = patterns(second, (WARPS, depth, 8), 2)
    c = np.random.default_rng(3).standard_normal((WARPS, 16, 8)).astype("f4")
    start = packed(c.view("u4"), lambda bits, lane, i: c_place(lane, i), 32, 4)
    opcode = f"mma.sync.aligned.{shape}.row.col.f32.{first}.{second}.f32"
    found = multiply(opcode, packed(a, a_place, bits, 16 * depth // 32), packed(b, b_place, bits, depth // 4), start)
    for warp in range(WARPS):
        for lane in range(32):
            for i in range(4):
                row, column = c_place(lane, i)
                terms = [*(x[warp, row] * y[warp, :, column]).tolist(), float(c[warp, row, column])]
                result = found[warp, lane, i : i + 1].view("f4")[0]
                assert abs(result - math.fsum(terms)) <= np.spacing(np.float32(abs(result)))


def test_products_of_halves_as_halves():
    a, x = patterns("f16", (WARPS, 16, 16), 4)
    b, y = patterns("f16", (WARPS, 16, 8), 5)
    c, z = patterns("f16", (WARPS, 16, 8), 6)
    start = packed(c, lambda bits, lane, i: c_place(lane, i), 16, 4)
    found = multiply("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", packed(a, a_place, 16, 8),
                     packed(b, b_place, 16, 4), start)  # fmt: skip
    for warp in range(WARPS):
        for lane in range(32):
            for i in range(4):
                row, column = c_place(lane, i)
                total = math.fsum([*(x[warp, row] * y[warp, :, column]).tolist(), float(z[warp, row, column])])
                half = np.array([found[warp, lane, i // 2] >> 16 * (i % 2)], "u4").astype("u2").view("f2")[0]
                assert abs(float(half) - total) <= float(np.spacing(np.abs(half)))


@pytest.mark.parametrize("first", ["s8", "u8"])
@pytest.mark.parametrize("second", ["s8", "u8"])
@pytest.mark.parametrize("depth", [16, 32])
@pytest.mark.parametrize("saturates", [False, True])
def test_products_of_bytes_are_exact(first, second, depth, saturates):
    a, x = patterns(first, (WARPS, 16, depth), 7)
    b, y = patterns(second, (WARPS, depth, 8), 8)
    c = np.random.default_rng(9).integers(-(2**31), 2**31, (WARPS, 16, 8)).astype("i4")
    c[:, ::3], c[:, 1::3] = 2**31 - 1, -(2**31)
    start = packed(c.view("u4"), lambda bits, lane, i: c_place(lane, i), 32, 4)
    word = ".satfinite" if saturates else ""
    opcode = f"mma.sync.aligned.m16n8k{depth}.row.col{word}.s32.{first}.{second}.s32"
    found = multiply(opcode, packed(a, a_place, 8, depth // 2), packed(b, b_place, 8, depth // 4), start).view("i4")
    for warp in range(WARPS):
        for lane in range(32):
            for i in range(4):
                row, column = c_place(lane, i)
                total = sum(int(p * q) for p, q in zip(x[warp, row], y[warp, :, column], strict=True))
                total += int(c[warp, row, column])
                held = max(-(2**31), min(2**31 - 1, total)) if saturates else (total + 2**31) % 2**32 - 2**31
                assert found[warp, lane, i] == held


def test_what_there_is_not():
    for opcode in (
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.bf16.f32",
        "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k8.row.col.s32.s8.s8.s32",
        "mma.sync.aligned.m16n8k32.row.col.f32.s8.s8.f32",
        "mma.sync.aligned.m16n8k16.row.col.satfinite.f32.f16.f16.f32",
        "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64",
    ):
        with pytest.raises(UnknownInstruction, match=rf"kernel, line \d+: {opcode} is not implemented"):
            run(f"{opcode} {group(40, 4)}, {group(10, 4)}, {group(20, 2)}, {group(30, 4)};")


def test_a_warp_without_some_of_its_lanes():
    one = np.zeros((1, 32, 4), "u4")
    opcode = "setp.lt.u32 %p0, %r0, 30; @!%p0 exit; mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    with pytest.raises(BarrierFault, match="without some of its lanes"):
        multiply(opcode, one, np.zeros((1, 32, 2), "u4"), one, 32)


# Matrices of 8 x 8 in shared memory

BOX = ".shared .align 16 .b8 box[2048];\n"
FILL = """mov.u32 %r0, %tid.x; mov.u32 %r1, box; mul.wide.u32 %rd9, %r0, 16; add.s64 %rd9, %rd0, %rd9;
    ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd9]; mad.lo.u32 %r2, %r0, 16, %r1;
    st.shared.v4.u32 [%r2], {%r10, %r11, %r12, %r13}; bar.sync 0;"""


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("generic", [False, True])
def test_matrices_are_loaded(count, transposed, generic):
    """Rows lie where the lanes say, here in an order of their own for each warp."""
    rows = np.arange(64 * 8, dtype="u2").reshape(64, 8) * 3
    y = np.zeros((64, count), "u4")
    order = np.random.default_rng(10).permutation(64).astype("u4")
    space, address = ("", "%rd20") if generic else (".shared", "%r20")
    window = "cvt.u64.u32 %rd20, %r20; cvta.shared.u64 %rd20, %rd20;" if generic else ""
    code = f"""{FILL} mul.wide.u32 %rd8, %r0, 4; add.s64 %rd8, %rd1, %rd8; ld.global.u32 %r9, [%rd8];
    mad.lo.u32 %r20, %r9, 16, %r1; {window}
    ldmatrix.sync.aligned.m8n8.x{count}{".trans" if transposed else ""}{space}.b16 {group(30, count)}, [{address}];
    mul.wide.u32 %rd7, %r0, {4 * count}; add.s64 %rd7, %rd2, %rd7;"""
    code += "".join(f"st.global.u32 [%rd7+{4 * n}], %r{30 + n};" for n in range(count))
    run(code, [rows, order, y], block=64, before=BOX)
    halves = y.view("u2").reshape(64, count, 2)
    for lane in range(64):
        for n in range(count):
            matrix = rows[order[lane // 32 * 32 + 8 * n : lane // 32 * 32 + 8 * n + 8]]
            matrix = matrix.T if transposed else matrix
            row, column = lane % 32 // 4, lane % 4 * 2
            assert halves[lane, n].tolist() == matrix[row, column : column + 2].tolist()


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_stored(transposed):
    """What stmatrix writes, ldmatrix reads back."""
    x = np.random.default_rng(11).integers(0, 2**32, (32, 4), "u8").astype("u4")
    y = np.zeros_like(x)
    word = ".trans" if transposed else ""
    code = f"""{FILL} stmatrix.sync.aligned.m8n8.x4{word}.shared.b16 [%r2], {group(10, 4)}; bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x4{word}.shared.b16 {group(20, 4)}, [%r2]; mul.wide.u32 %rd9, %r0, 16;
    add.s64 %rd9, %rd1, %rd9; st.global.v4.u32 [%rd9], {group(20, 4)};"""
    run(code, [x, y], before=BOX)
    assert (x == y).all()


def test_a_matrix_is_transposed_in_registers():
    x = np.arange(64, dtype="u2").reshape(8, 8)
    y = np.zeros_like(x)
    code = """mov.u32 %r0, %tid.x; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd2, %rd0, %rd9; ld.global.u32 %r1, [%rd2];
    movmatrix.sync.aligned.m8n8.trans.b16 %r2, %r1; add.s64 %rd2, %rd1, %rd9; st.global.u32 [%rd2], %r2;"""
    run(code, [x, y])
    assert (y == x.T).all()


def test_rows_are_checked():
    code = FILL + "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%r2+8];"
    with pytest.raises(MemoryFault, match="reads 16 bytes of shared memory at 0x8: misaligned"):
        run(code, [np.zeros((32, 8), "u2")], before=BOX)
    code = FILL + "setp.eq.u32 %p0, %r0, 41; @%p0 add.u32 %r2, %r2, 4096;"
    code += "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r3, %r4}, [%r2];"
    with pytest.raises(MemoryFault, match=r"thread \(41, 0, 0\), lane 9 of warp 1 reads 16 bytes .*out of bounds"):
        run(code, [np.zeros((64, 8), "u2")], before=BOX, block=64)
    code = FILL + "add.u32 %r2, %r2, 2000; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%r2];"
    with pytest.raises(MemoryFault, match="out of bounds"):
        run(code, [np.zeros((32, 8), "u2")], before=BOX)
