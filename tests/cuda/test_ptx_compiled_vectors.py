"""Products of a matrix and a vector as numba-cuda compiles them: 128-bit loads, bfloat16, whole numbers of 4 bits."""

from __future__ import annotations

import numpy as np
from compiled import Kernel, cuda, ptx, types
from hypothesis import given
from hypothesis import strategies as st

I64, I32, U32, F32 = types.int64, types.int32, types.uint32, types.float32

load_4 = ptx("ld.global.nc.L1::no_allocate.v4.u32 {$0, $1, $2, $3}, [$4];", "=r,=r,=r,=r,l", [U32] * 4, I64)
load_f32 = ptx("ld.global.f32 $0, [$1];", "=f,l", [F32], I64)
store_u16 = ptx("{ .reg .b16 %low; cvt.u16.u32 %low, $1; st.global.u16 [$0], %low; }", "l,r", [], I64, U32)
pack = ptx("cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f", [U32], F32, F32)
as_float = ptx("mov.b32 $0, $1;", "=f,r", [F32], U32)
fma = ptx("fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", [F32], F32, F32, F32)
nibbles = ptx("lop3.b32 $0, $1, 0x0f0f0f0f, 0, 0xc0;", "=r,r", [U32], U32)
dot = ptx("dp4a.u32.s32 $0, $1, $2, $3;", "=r,r,r,r", [I32], U32, U32, I32)


@cuda.jit(device=True)
def two(word, x, total):
    """Add the products of two bfloat16 of a word with two floats at an address."""
    total = fma(as_float(word << U32(16)), load_f32(x), total)
    return fma(as_float(word & U32(0xFFFF0000)), load_f32(x + 4), total)


def matvec(y, w, x, rows, n):
    """Return bfloat16 y[rows] = w[rows, n] @ x[n]: a warp for each row, 8 values a load."""
    row = I64(cuda.blockIdx.x) * (cuda.blockDim.x // 32) + cuda.threadIdx.x // 32
    lane = cuda.threadIdx.x % 32
    if row >= rows:
        return
    total = F32(0)
    for i in range(lane * 8, n, 256):
        a, b, c, d = load_4(w + 2 * (row * n + i))
        total = two(a, x + 4 * i, total)
        total = two(b, x + 4 * (i + 2), total)
        total = two(c, x + 4 * (i + 4), total)
        total = two(d, x + 4 * (i + 6), total)
    for step in (16, 8, 4, 2, 1):
        total += cuda.shfl_down_sync(0xFFFFFFFF, total, step)
    if lane == 0:
        store_u16(y + 2 * row, pack(F32(0), total))


def matvec_int4(y, w, x, rows, n):
    """Return int32 y[rows] = w @ x, of unsigned 4-bit w (the lower half of a byte first) and signed bytes in x."""
    row = I64(cuda.blockIdx.x) * (cuda.blockDim.x // 32) + cuda.threadIdx.x // 32
    lane = cuda.threadIdx.x % 32
    if row >= rows:
        return
    total = I32(0)
    for i in range(lane * 32, n, 1024):
        words = load_4(w + (row * n + i) // 2)
        low, high = load_4(x + i), load_4(x + n + i)
        for k in range(4):
            total = dot(nibbles(words[k]), low[k], total)
            total = dot(nibbles(words[k] >> U32(4)), high[k], total)
    total = reduce_add(total)
    if lane == 0:
        store_i32(y + 4 * row, total)


reduce_add = ptx("redux.sync.add.s32 $0, $1, -1;", "=r,r", [I32], I32)
store_i32 = ptx("st.global.u32 [$0], $1;", "l,r", [], I64, I32)
BLOCKS = st.sampled_from((32, 64, 128))
KERNELS: dict[str, Kernel] = {}


def kernel(function):
    if function.__name__ not in KERNELS:
        KERNELS[function.__name__] = Kernel(function, *[I64] * 5)
    return KERNELS[function.__name__]


@given(rows=st.integers(1, 21), n=st.integers(1, 90), block=BLOCKS, seed=st.integers(0, 99))
def test_bfloat16(rows, n, block, seed):
    n *= 8
    rng = np.random.default_rng(seed)
    w = (rng.standard_normal((rows, n)).astype("f4").view("u4") >> 16).astype("u2")
    x, y = rng.standard_normal(n).astype("f4"), np.zeros(rows, "u2")
    kernel(matvec)(-(-rows // (block // 32)), block, [y, w, x, rows, n])
    exact = (w.astype("u4") << 16).view("f4").astype("f8") @ x
    found = (y.astype("u4") << 16).view("f4")
    np.testing.assert_allclose(found, exact, rtol=2.0**-8, atol=1e-6 * n)
    assert "ld.global.nc.L1::no_allocate.v4.u32" in kernel(matvec).text


@given(rows=st.integers(1, 21), n=st.integers(1, 40), block=BLOCKS, seed=st.integers(0, 99))
def test_four_bits(rows, n, block, seed):
    n *= 32
    rng = np.random.default_rng(seed)
    w, x = rng.integers(0, 16, (rows, n)), rng.integers(-128, 128, n)
    packed = (w[:, 0::2] | w[:, 1::2] << 4).astype("u1")
    # The vector's even elements and its odd ones, each in the place of 16 bytes that a load of the weights takes.
    parts = x.reshape(-1, 16, 2).astype("i1")
    apart = np.zeros((2, n), "i1")
    for k in range(2):
        apart[k].reshape(-1, 32)[:, :16] = parts[:, :, k]
    y = np.zeros(rows, "i4")
    kernel(matvec_int4)(-(-rows // (block // 32)), block, [y, packed, apart, rows, n])
    assert (y == w @ x).all()
