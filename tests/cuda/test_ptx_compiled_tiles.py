"""Kernels of numba-cuda with PTX in their text: tensor cores, ldmatrix, cp.async, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Kernel, cuda, ptx, shared_address, store_f32, types
from hypothesis import given
from hypothesis import strategies as st
from ptx import MemoryFault

I64, I32, F32 = types.int64, types.int32, types.float32

copy_16 = ptx("cp.async.cg.shared.global [$0], [$1], 16;", "r,l", [], I32, I64)
copy_part = ptx("cp.async.cg.shared.global [$0], [$1], 16, $2;", "r,l,r", [], I32, I64, I32)
commit = ptx("cp.async.commit_group;", "", [])
wait_all = ptx("cp.async.wait_group 0;", "", [])
wait_but_one = ptx("cp.async.wait_group 1;", "", [])
ldmatrix_4 = ptx("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];", "=r,=r,=r,=r,r", [I32] * 4, I32)
ldmatrix_2_trans = ptx("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {$0, $1}, [$2];", "=r,=r,r", [I32] * 2, I32)


def _mma(kind):
    text = f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 "
    text += "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
    constraints = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
    return ptx(text, constraints, [F32] * 4, *[I32] * 6, *[F32] * 4)


mma_f16, mma_bf16 = _mma("f16"), _mma("bf16")
DEPTH, ROWS, COLUMNS = 16, 16, 8


def make_product(mma, waits):
    """Return a kernel of one warp a block: c[16, 8] tiles of a[m, k] @ b[k, n], two tiles of shared memory in turn."""

    def product(c, a, b, m, n, k):
        left = cuda.shared.array((2, 16, 8), I32)
        right = cuda.shared.array((2, 16, 4), I32)
        lane = cuda.threadIdx.x
        row, column = I64(cuda.blockIdx.y) * ROWS, I64(cuda.blockIdx.x) * COLUMNS
        to_left, to_right = shared_address(left), shared_address(right)
        c0, c1, c2, c3 = F32(0), F32(0), F32(0), F32(0)
        steps = (k + DEPTH - 1) // DEPTH
        for step in range(steps + 1):
            if step < steps:
                # Rows of 32 bytes (left) and 16 bytes (right); what lies beyond the matrix is zero.
                stage = I32(step % 2)
                i, half = lane // 2, lane % 2
                inside = min(max(k - (step * DEPTH + half * 8), I64(0)), I64(8)) * 2 if row + i < m else I64(0)
                from_left = a + 2 * ((row + i) * k + step * DEPTH + half * 8) if inside > 0 else a
                copy_part(to_left + stage * 512 + lane * 16, from_left, I32(inside))
                if lane < DEPTH:
                    there = I32(16) if step * DEPTH + lane < k else I32(0)
                    from_right = b + 2 * ((step * DEPTH + lane) * n + column) if there > 0 else b
                    copy_part(to_right + stage * 256 + lane * 16, from_right, there)
            commit()
            if step == 0:
                continue
            if waits:
                wait_but_one()
            cuda.syncwarp()
            stage = I32((step - 1) % 2)
            a0, a1, a2, a3 = ldmatrix_4(to_left + stage * 512 + (lane % 16) * 32 + (lane // 16) * 16)
            b0, b1 = ldmatrix_2_trans(to_right + stage * 256 + (lane % 16) * 16)
            c0, c1, c2, c3 = mma(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3)
            cuda.syncwarp()
        i, j = row + lane // 4, column + lane % 4 * 2
        if i < m:
            store_f32(c + 4 * (i * n + j), c0)
            store_f32(c + 4 * (i * n + j + 1), c1)
        if i + 8 < m:
            store_f32(c + 4 * ((i + 8) * n + j), c2)
            store_f32(c + 4 * ((i + 8) * n + j + 1), c3)

    return Kernel(product, *[I64] * 6)


PRODUCTS = {"f16": make_product(mma_f16, True), "bf16": make_product(mma_bf16, True)}


def numbers(kind, shape, rng):
    """Return random numbers as bits of 16 and as doubles."""
    x = rng.standard_normal(shape).astype("f4")
    if kind == "f16":
        half = x.astype("f2")
        return half.view("u2"), half.astype("f8")
    bits = (x.view("u4") >> 16).astype("u2")
    return bits, (bits.astype("u4") << 16).view("f4").astype("f8")


@pytest.mark.parametrize("kind", PRODUCTS)
@given(m=st.integers(1, 40), n=st.integers(1, 4), k=st.integers(1, 6), seed=st.integers(0, 99))
def test_products_of_tiles(kind, m, n, k, seed):
    """Rows are whole vectors of 16 bytes: n and k are multiples of 8."""
    rng = np.random.default_rng(seed)
    n, k = 8 * n, 8 * k
    a, x = numbers(kind, (m, k), rng)
    b, y = numbers(kind, (k, n), rng)
    c = np.zeros((m, n), "f4")
    PRODUCTS[kind]((n // COLUMNS, -(-m // ROWS)), 32, [c, a, b, m, n, k])
    np.testing.assert_allclose(c, x @ y, rtol=0, atol=2e-6 * k)


def test_a_missing_wait_is_found():
    rng = np.random.default_rng(1)
    (a, _), (b, _) = numbers("f16", (16, 32), rng), numbers("f16", (32, 8), rng)
    with pytest.raises(MemoryFault, match=r"whose copy by cp.async was not waited for"):
        make_product(mma_f16, False)((1, 1), 32, [np.zeros((16, 8), "f4"), a, b, 16, 8, 32])


def test_what_the_compiler_made_of_it():
    text = PRODUCTS["bf16"].text
    for opcode in ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "ldmatrix.sync.aligned.m8n8.x2.trans"):
        assert opcode in text
