"""What a machine can do at best: bytes read and multiply-adds done a second, the roof over every other kernel."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import LANES, WIDE, fma, load_f32, put_f32, splat, sum_lanes

UNROLL = 8  # streams of sums, so that no addition waits for the one before
CHAINS = 12 if WIDE else 6  # accumulators that fit into registers beside two operands, and hide the latency


@kernel
def read_range(x: int, first: int, last: int) -> float:
    """Sum the elements first <= i < last, sixteen times UNROLL at a time; the rest of a division is left out.

    Shapes: x float32 (n,). Sums in float32 by 128 lanes.
    """
    zero = splat(0.0)
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    step = UNROLL * LANES
    for i in range(first, last - step + 1, step):
        at = x + 4 * i
        a, b = a + load_f32(at), b + load_f32(at + 4 * LANES)
        c, d = c + load_f32(at + 8 * LANES), d + load_f32(at + 12 * LANES)
        e, f = e + load_f32(at + 16 * LANES), f + load_f32(at + 20 * LANES)
        g, h = g + load_f32(at + 24 * LANES), h + load_f32(at + 28 * LANES)
    return sum_lanes(((a + b) + (c + d)) + ((e + f) + (g + h)))


@parallel_kernel
def read_all(sums: int, x: int, n: int, part: int, parts: int) -> None:
    """Read a buffer once, split over threads; the sums are there so that no read can be left out.

    sums[p] = sum of x[i] over the part's own elements, whole steps of 128 of them

    Shapes: sums float32 (parts,); x float32 (n,).
    """
    first, last = part * n // parts, (part + 1) * n // parts
    put_f32(sums + 4 * part, read_range(x, first, last))


@kernel
def fma_range(rounds: int, start: float, x: float, y: float) -> float:
    """Run CHAINS independent chains of multiply-adds in registers, and sum what they end with.

    chain[j] = start + j, then rounds times chain[j] = chain[j] * x + y, in each of sixteen lanes

    Shapes: none. Sums in float32.
    """
    v, w = splat(x), splat(y)
    a, b, c = splat(start), splat(start + 1.0), splat(start + 2.0)
    d, e, f = splat(start + 3.0), splat(start + 4.0), splat(start + 5.0)
    if CHAINS == 6:
        for _ in range(rounds):
            a, b, c = fma(a, v, w), fma(b, v, w), fma(c, v, w)
            d, e, f = fma(d, v, w), fma(e, v, w), fma(f, v, w)
        return sum_lanes(((a + b) + (c + d)) + (e + f))
    g, h, i = splat(start + 6.0), splat(start + 7.0), splat(start + 8.0)
    j, k, m = splat(start + 9.0), splat(start + 10.0), splat(start + 11.0)
    for _ in range(rounds):
        a, b, c = fma(a, v, w), fma(b, v, w), fma(c, v, w)
        d, e, f = fma(d, v, w), fma(e, v, w), fma(f, v, w)
        g, h, i = fma(g, v, w), fma(h, v, w), fma(i, v, w)
        j, k, m = fma(j, v, w), fma(k, v, w), fma(m, v, w)
    return sum_lanes((((a + b) + (c + d)) + (e + f)) + (((g + h) + (i + j)) + (k + m)))


@parallel_kernel
def fma_all(sums: int, rounds: int, x: float, y: float, part: int, parts: int) -> None:
    """Run ``fma_range`` in every thread.

    sums[p] = fma_range(rounds, p, x, y)

    Shapes: sums float32 (parts,).
    """
    put_f32(sums + 4 * part, fma_range(rounds, float(part), x, y))
