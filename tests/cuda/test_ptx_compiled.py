"""Kernels as numba-cuda compiles them, against NumPy: reductions, matrices, counts, scans, ways of their own."""

from __future__ import annotations

import compiled
import numpy as np
import pytest
from compiled import Kernel, cuda, load_f32, load_i32, store_f32, store_i32, types
from hypothesis import given
from hypothesis import strategies as st
from ptx import BarrierFault, RaceFault

I64, I32, F32 = types.int64, types.int32, types.float32


@cuda.jit(device=True)
def warp_sum(x):
    for step in (16, 8, 4, 2, 1):
        x += cuda.shfl_xor_sync(0xFFFFFFFF, x, step)
    return x


@cuda.jit(device=True)
def warp_max(x):
    for step in (16, 8, 4, 2, 1):
        x = max(x, cuda.shfl_xor_sync(0xFFFFFFFF, x, step))
    return x


@cuda.jit(device=True)
def block_sum(x, part):
    """Sum over a block of whole warps; part holds one value for each."""
    x = warp_sum(x)
    warps = cuda.blockDim.x // 32
    cuda.syncthreads()
    if cuda.threadIdx.x % 32 == 0:
        part[cuda.threadIdx.x // 32] = x
    cuda.syncthreads()
    total = F32(0)
    for n in range(warps):
        total += part[n]
    return total


@cuda.jit(device=True)
def block_max(x, part):
    x = warp_max(x)
    cuda.syncthreads()
    if cuda.threadIdx.x % 32 == 0:
        part[cuda.threadIdx.x // 32] = x
    cuda.syncthreads()
    most = part[0]
    for n in range(1, cuda.blockDim.x // 32):
        most = max(most, part[n])
    return most


def rms_norm(y, x, w, n, eps):
    part = cuda.shared.array(32, F32)
    start = I64(cuda.blockIdx.x) * n
    total = F32(0)
    i = I64(cuda.threadIdx.x)
    while i < n:
        v = load_f32(x + 4 * (start + i))
        total += v * v
        i += cuda.blockDim.x
    scale = F32(1) / cuda.libdevice.sqrtf(block_sum(total, part) / F32(n) + eps)
    i = I64(cuda.threadIdx.x)
    while i < n:
        store_f32(y + 4 * (start + i), load_f32(x + 4 * (start + i)) * scale * load_f32(w + 4 * i))
        i += cuda.blockDim.x


def softmax(y, x, n):
    part = cuda.shared.array(32, F32)
    start = I64(cuda.blockIdx.x) * n
    most = F32(-3e38)
    for i in range(cuda.threadIdx.x, n, cuda.blockDim.x):
        most = max(most, load_f32(x + 4 * (start + i)))
    most = block_max(most, part)
    total = F32(0)
    for i in range(cuda.threadIdx.x, n, cuda.blockDim.x):
        e = cuda.libdevice.expf(load_f32(x + 4 * (start + i)) - most)
        store_f32(y + 4 * (start + i), e)
        total += e
    total = block_sum(total, part)
    for i in range(cuda.threadIdx.x, n, cuda.blockDim.x):
        store_f32(y + 4 * (start + i), load_f32(y + 4 * (start + i)) / total)


KERNELS: dict[str, Kernel] = {}


def kernel(function, *signature):
    """Return a compiled kernel, compiled once."""
    if function.__name__ not in KERNELS:
        KERNELS[function.__name__] = Kernel(function, *signature)
    return KERNELS[function.__name__]


BLOCKS = st.sampled_from((32, 96, 256))


@given(rows=st.integers(1, 9), n=st.integers(1, 300), block=BLOCKS, seed=st.integers(0, 99))
def test_rms_norm(rows, n, block, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((rows, n)).astype("f4"), rng.standard_normal(n).astype("f4")
    y = np.zeros_like(x)
    kernel(rms_norm, I64, I64, I64, I64, F32)(rows, block, [y, x, w, n, 1e-6])
    expected = x / np.sqrt((x.astype("f8") ** 2).mean(axis=1, keepdims=True) + 1e-6) * w
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-9)


@given(rows=st.integers(1, 9), n=st.integers(1, 300), block=BLOCKS, seed=st.integers(0, 99))
def test_softmax(rows, n, block, seed):
    x = (np.random.default_rng(seed).standard_normal((rows, n)) * 10).astype("f4")
    y = np.zeros_like(x)
    kernel(softmax, I64, I64, I64)(rows, block, [y, x, n])
    e = np.exp(x.astype("f8") - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=5e-6, atol=1e-12)


CAPABILITIES = [(8, 0), (8, 6), (8, 9), (9, 0, "a"), (10, 0, "a"), (12, 0)]


@pytest.mark.parametrize("cc", CAPABILITIES)
def test_every_architecture(cc):
    """Newer ones are compiled by another compiler."""
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((3, 77)).astype("f4"), rng.standard_normal(77).astype("f4")
    y, z = np.zeros_like(x), np.zeros_like(x)
    made = Kernel(rms_norm, I64, I64, I64, I64, F32, cc=cc)
    made(3, 64, [y, x, w, 77, 1e-6])
    kernel(rms_norm, I64, I64, I64, I64, F32)(3, 64, [z, x, w, 77, 1e-6])
    assert made.module.target == "sm_" + "".join(map(str, cc))
    np.testing.assert_allclose(y, z, rtol=1e-6)


TILE = 16


def matmul(c, a, b, m, n, k):
    left = cuda.shared.array((TILE, TILE), F32)
    right = cuda.shared.array((TILE, TILE), F32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = I64(cuda.blockIdx.y) * TILE + ty, I64(cuda.blockIdx.x) * TILE + tx
    total = F32(0)
    for start in range(0, k, TILE):
        left[ty, tx] = load_f32(a + 4 * (row * k + start + tx)) if row < m and start + tx < k else F32(0)
        right[ty, tx] = load_f32(b + 4 * ((start + ty) * n + column)) if start + ty < k and column < n else F32(0)
        cuda.syncthreads()
        for i in range(TILE):
            total += left[ty, i] * right[i, tx]
        cuda.syncthreads()
    if row < m and column < n:
        store_f32(c + 4 * (row * n + column), total)


@given(m=st.integers(1, 40), n=st.integers(1, 40), k=st.integers(1, 70), seed=st.integers(0, 99))
def test_matrices_in_tiles(m, n, k, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)).astype("f4"), rng.standard_normal((k, n)).astype("f4")
    c = np.zeros((m, n), "f4")
    grid = (-(-n // TILE), -(-m // TILE))
    kernel(matmul, *[I64] * 6)(grid, (TILE, TILE), [c, a, b, m, n, k])
    np.testing.assert_allclose(c, a.astype("f8") @ b, atol=1e-5 * k)


def histogram(counts, x, n):
    bins = cuda.shared.array(17, I32)
    t = cuda.threadIdx.x
    if t < 17:
        bins[t] = 0
    cuda.syncthreads()
    i = cuda.grid(1)
    if i < n:
        cuda.atomic.add(bins, load_i32(x + 4 * i), 1)
    cuda.syncthreads()
    if t < 17:
        add_global(counts + 4 * t, bins[t])


add_global = compiled.ptx("red.global.add.u32 [$0], $1;", "l,r", [], I64, I32)


@given(n=st.integers(1, 700), seed=st.integers(0, 99), width=st.sampled_from((64, 256, 2048)))
def test_a_histogram(n, seed, width):
    x = np.random.default_rng(seed).integers(0, 17, n).astype("i4")
    counts = np.zeros(17, "i4")
    kernel(histogram, I64, I64, I64)(-(-n // 64), 64, [counts, x, n], width=width)
    assert (counts == np.bincount(x, minlength=17)).all()


def ways(y, x, n):
    """Loops of different lengths, with an early exit, a break and a continue."""
    i = cuda.grid(1)
    if i >= n:
        return
    v = load_i32(x + 4 * i)
    if v < 0:
        store_i32(y + 4 * i, -1)
        return
    total = 0
    for step in range(v):
        if step % 3 == 1:
            continue
        if total > 40:
            break
        inner = step
        while inner > 0:
            total += inner & 1
            inner >>= 1
    store_i32(y + 4 * i, total)


@given(values=st.lists(st.integers(-3, 60), min_size=1, max_size=200))
def test_lanes_take_their_own_ways(values):
    x = np.array(values, "i4")
    y = np.zeros_like(x)
    kernel(ways, I64, I64, I64)(-(-len(x) // 96), 96, [y, x, len(x)])
    for v, found in zip(values, y.tolist(), strict=True):
        total = 0 if v >= 0 else -1
        for step in range(v):
            if step % 3 == 1:
                continue
            if total > 40:
                break
            total += step.bit_count()
        assert found == total


def scan(y, x, n):
    """Sums of all values before and with each one: within warps, then over warps, block after block."""
    sums = cuda.shared.array(32, I32)
    t = cuda.threadIdx.x
    lane, warp = t % 32, t // 32
    before = 0
    start = 0
    while start < n:
        v = load_i32(x + 4 * (start + t)) if start + t < n else I32(0)
        for step in (1, 2, 4, 8, 16):
            other = cuda.shfl_up_sync(0xFFFFFFFF, v, step)
            if lane >= step:
                v += other
        if lane == 31:
            sums[warp] = v
        cuda.syncthreads()
        if warp == 0:
            s = sums[lane] if lane < cuda.blockDim.x // 32 else I32(0)
            for step in (1, 2, 4, 8, 16):
                other = cuda.shfl_up_sync(0xFFFFFFFF, s, step)
                if lane >= step:
                    s += other
            sums[lane] = s
        cuda.syncthreads()
        if warp > 0:
            v += sums[warp - 1]
        if start + t < n:
            store_i32(y + 4 * (start + t), before + v)
        before += sums[cuda.blockDim.x // 32 - 1]
        cuda.syncthreads()
        start += cuda.blockDim.x


@given(n=st.integers(1, 900), block=BLOCKS, seed=st.integers(0, 99))
def test_a_scan_over_a_block(n, block, seed):
    x = np.random.default_rng(seed).integers(-1000, 1000, n).astype("i4")
    y = np.zeros_like(x)
    kernel(scan, I64, I64, I64)(1, block, [y, x, n])
    assert (y == np.cumsum(x)).all()


def without_barrier(y, x):
    box = cuda.shared.array(64, F32)
    t = cuda.threadIdx.x
    box[t] = load_f32(x + 4 * t)
    store_f32(y + 4 * t, box[63 - t])


def half_a_barrier(y, x):
    if cuda.threadIdx.x < 40:
        cuda.syncthreads()
    store_f32(y, load_f32(x))


def test_what_is_forgotten_is_found():
    x = np.arange(64, dtype="f4")
    with pytest.raises(RaceFault, match="another warp wrote with no barrier between"):
        kernel(without_barrier, I64, I64)(1, 64, [np.zeros(64, "f4"), x])
    with pytest.raises(BarrierFault, match=r"waits at barrier 0, which never come \(24 exited\)"):
        kernel(half_a_barrier, I64, I64)(1, 64, [np.zeros(64, "f4"), x])
