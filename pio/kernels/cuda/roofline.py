"""What a GPU can do at best: bytes read and products added a second, the roof over every other kernel.

As ``pio.kernels.roofline``, but that every block of the grid is a part. Tensor cores are fed by ``mma.sync``, which all
of these kernels use; GPUs whose tensor cores read shared memory themselves do more with that.
"""

from __future__ import annotations

from pio.kernels.cuda._block import block_sum_i64
from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda._quads import load_four_of
from pio.kernels.cuda._reduce import block_sum
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    fma,
    grid_size,
    load_four,
    mma_bf16,
    mma_s8,
    pack_bf16,
    put_f32,
    put_i64,
    single,
    single_of,
    thread_index,
    whole_of,
    word_of,
)

CHAINS = 8  # of each thread, or of each warp where tensor cores are meant
PRODUCTS_BF16 = 16 * 8 * 16  # that a warp adds in one instruction
PRODUCTS_S8 = 16 * 8 * 32
SHARED = 8 * 32


@cuda_kernel(blocks=8, shared=SHARED)
def read_all(sums: int, x: int, n: int) -> None:
    """Read a buffer once; the sums are there so that no read can be left out.

    sums[b] = sum of the x[i] that block b reads

    Shapes: sums float32 (blocks of the grid,); x float32 (n,), from an address that sixteen divides.
    """
    zero = single(0.0)
    a = b = c = d = zero
    i, step = 4 * (block_index() * block_size() + thread_index()), 4 * grid_size() * block_size()
    while i + 3 * step + 4 <= n:  # four loads of sixteen bytes on the way
        p0, p1, p2, p3 = load_four(x + 4 * i)
        q0, q1, q2, q3 = load_four(x + 4 * (i + step))
        r0, r1, r2, r3 = load_four(x + 4 * (i + 2 * step))
        s0, s1, s2, s3 = load_four(x + 4 * (i + 3 * step))
        a, b, c, d = a + (p0 + q0), b + (p1 + q1), c + (p2 + q2), d + (p3 + q3)
        a, b, c, d = a + (r0 + s0), b + (r1 + s1), c + (r2 + s2), d + (r3 + s3)
        i += 4 * step
    while i < n:
        p0, p1, p2, p3 = load_four_of(x, i, n, zero)
        a, b, c, d = a + p0, b + p1, c + p2, d + p3
        i += step
    total = block_sum((a + b) + (c + d))
    if thread_index() == 0:
        put_f32(sums + 4 * block_index(), total)


@cuda_kernel(blocks=8, shared=SHARED)
def fma_all(sums: int, rounds: int, x: float, y: float) -> None:
    """Run CHAINS independent chains of multiply-adds in the registers of every thread.

    chain[j] = b + j, then rounds times chain[j] = chain[j] * x + y; sums[b] = sum of all chains of block b

    Shapes: sums float32 (blocks of the grid,). 2 * rounds * CHAINS operations of each thread.
    """
    v, w, start = single(x), single(y), single_of(block_index())
    a, b, c, d = start, start + single(1.0), start + single(2.0), start + single(3.0)
    e, f, g, h = start + single(4.0), start + single(5.0), start + single(6.0), start + single(7.0)
    i = 0
    while i + 4 <= rounds:
        for _ in range(4):
            a, b, c, d = fma(a, v, w), fma(b, v, w), fma(c, v, w), fma(d, v, w)
            e, f, g, h = fma(e, v, w), fma(f, v, w), fma(g, v, w), fma(h, v, w)
        i += 4
    while i < rounds:
        a, b, c, d = fma(a, v, w), fma(b, v, w), fma(c, v, w), fma(d, v, w)
        e, f, g, h = fma(e, v, w), fma(f, v, w), fma(g, v, w), fma(h, v, w)
        i += 1
    total = block_sum(((a + b) + (c + d)) + ((e + f) + (g + h)))
    if thread_index() == 0:
        put_f32(sums + 4 * block_index(), total)


@cuda_kernel(blocks=4, shared=SHARED)
def pair_all(sums: int, rounds: int, x: float) -> None:
    """Run CHAINS independent chains of bfloat16 products in the tensor cores, for every warp.

    chain[j] = j, then rounds times chain[j] += 16 * (x * 2), of 16 x 8 numbers; sums[b] = sum of all of block b

    Shapes: sums float32 (blocks of the grid,); x is a bfloat16. 2 * rounds * CHAINS * PRODUCTS_BF16 operations of each
    warp.
    """
    v, two = pack_bf16(single(x), single(x)), pack_bf16(single(2.0), single(2.0))
    a0 = a1 = a2 = a3 = single(0.0)
    b0 = b1 = b2 = b3 = single(1.0)
    c0 = c1 = c2 = c3 = single(2.0)
    d0 = d1 = d2 = d3 = single(3.0)
    e0 = e1 = e2 = e3 = single(4.0)
    f0 = f1 = f2 = f3 = single(5.0)
    g0 = g1 = g2 = g3 = single(6.0)
    h0 = h1 = h2 = h3 = single(7.0)
    for _ in range(rounds):
        a0, a1, a2, a3 = mma_bf16(a0, a1, a2, a3, v, v, v, v, two, two)
        b0, b1, b2, b3 = mma_bf16(b0, b1, b2, b3, v, v, v, v, two, two)
        c0, c1, c2, c3 = mma_bf16(c0, c1, c2, c3, v, v, v, v, two, two)
        d0, d1, d2, d3 = mma_bf16(d0, d1, d2, d3, v, v, v, v, two, two)
        e0, e1, e2, e3 = mma_bf16(e0, e1, e2, e3, v, v, v, v, two, two)
        f0, f1, f2, f3 = mma_bf16(f0, f1, f2, f3, v, v, v, v, two, two)
        g0, g1, g2, g3 = mma_bf16(g0, g1, g2, g3, v, v, v, v, two, two)
        h0, h1, h2, h3 = mma_bf16(h0, h1, h2, h3, v, v, v, v, two, two)
    p0, p1, p2, p3 = (a0 + b0) + (c0 + d0), (a1 + b1) + (c1 + d1), (a2 + b2) + (c2 + d2), (a3 + b3) + (c3 + d3)
    q0, q1, q2, q3 = (e0 + f0) + (g0 + h0), (e1 + f1) + (g1 + h1), (e2 + f2) + (g2 + h2), (e3 + f3) + (g3 + h3)
    total = block_sum(((p0 + q0) + (p1 + q1)) + ((p2 + q2) + (p3 + q3)))
    if thread_index() == 0:
        put_f32(sums + 4 * block_index(), total)


@cuda_kernel(blocks=2, shared=SHARED)
def dot_all(sums: int, rounds: int, start: int) -> None:
    """Run CHAINS independent chains of products of bytes in the tensor cores, for every warp.

    chain[j] += 32 * (j + 1) * x, of 16 x 8 numbers, x = start, start + 1, ... as signed bytes; sums[b] = sum of all of
    block b

    Shapes: sums int64 (blocks of the grid,). Chains in int32, what they end with is added up in int64. 2 * rounds *
    CHAINS * PRODUCTS_S8 operations of each warp.
    """
    zero = word_of(0)
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero
    e0 = e1 = e2 = e3 = f0 = f1 = f2 = f3 = g0 = g1 = g2 = g3 = h0 = h1 = h2 = h3 = zero
    one, two, three, four = word_of(0x01010101), word_of(0x02020202), word_of(0x03030303), word_of(0x04040404)
    five, six, seven, eight = word_of(0x05050505), word_of(0x06060606), word_of(0x07070707), word_of(0x08080808)
    for i in range(rounds):
        v = word_of((start + i & 255) * 0x01010101)
        a0, a1, a2, a3 = mma_s8(a0, a1, a2, a3, v, v, v, v, one, one)
        b0, b1, b2, b3 = mma_s8(b0, b1, b2, b3, v, v, v, v, two, two)
        c0, c1, c2, c3 = mma_s8(c0, c1, c2, c3, v, v, v, v, three, three)
        d0, d1, d2, d3 = mma_s8(d0, d1, d2, d3, v, v, v, v, four, four)
        e0, e1, e2, e3 = mma_s8(e0, e1, e2, e3, v, v, v, v, five, five)
        f0, f1, f2, f3 = mma_s8(f0, f1, f2, f3, v, v, v, v, six, six)
        g0, g1, g2, g3 = mma_s8(g0, g1, g2, g3, v, v, v, v, seven, seven)
        h0, h1, h2, h3 = mma_s8(h0, h1, h2, h3, v, v, v, v, eight, eight)
    total = whole_of(a0) + whole_of(a1) + whole_of(a2) + whole_of(a3)
    total += whole_of(b0) + whole_of(b1) + whole_of(b2) + whole_of(b3)
    total += whole_of(c0) + whole_of(c1) + whole_of(c2) + whole_of(c3)
    total += whole_of(d0) + whole_of(d1) + whole_of(d2) + whole_of(d3)
    total += whole_of(e0) + whole_of(e1) + whole_of(e2) + whole_of(e3)
    total += whole_of(f0) + whole_of(f1) + whole_of(f2) + whole_of(f3)
    total += whole_of(g0) + whole_of(g1) + whole_of(g2) + whole_of(g3)
    total += whole_of(h0) + whole_of(h1) + whole_of(h2) + whole_of(h3)
    total = block_sum_i64(total)
    if thread_index() == 0:
        put_i64(sums + 8 * block_index(), total)
