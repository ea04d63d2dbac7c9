"""E to a power, as ``pio.kernels.exponential``: the same operations, hence the same bits."""

from __future__ import annotations

from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda.ptx import (
    divide,
    fma,
    fma_f64,
    maximum,
    plus,
    power_of_two,
    single,
    times,
    times_power,
    truncated,
)

LOWEST = -87.33654  # below it powers are no normal numbers of float32
HIGHEST = 88.72283  # beyond it they are infinite
MAGIC = 12_582_912.0  # 1.5 * 2^23: adding it rounds to a whole number, in the lowest bits


@device_function
def exp(v: float) -> float:
    """E to the power of a float32: 2e-7 relative, 0 below -87.3, inf above 88.7, NaN for NaN.

    2^n * p(r) with v = n ln 2 + r, |r| <= ln 2 / 2, p of degree 6.
    """
    shifted = fma(v, single(1.4426950408889634), single(MAGIC))
    n = plus(shifted, single(-MAGIC))
    r = fma(n, single(-1.42860682030941723212e-6), fma(n, single(-0.693145751953125), v))
    p = fma(single(1 / 720), r, single(1 / 120))
    p = fma(p, r, single(1 / 24))
    p = fma(p, r, single(1 / 6))
    p = fma(p, r, single(0.5))
    p = fma(p, r, single(1.0))
    p = fma(p, r, single(1.0))
    if v >= single(LOWEST) and v <= single(HIGHEST):
        return times_power(p, shifted)
    if v == v:
        return times(maximum(v, single(0.0)), single(3e38))  # 0 or inf
    return v


@device_function
def exp_f64(x: float) -> float:
    """E to the power of a float64, at most 0, to 2e-16; 0 below -700.

    2^n * p(r) with x = n ln 2 + r, |r| <= ln 2 / 2, p of degree 13.
    """
    if not x >= -700.0:
        return 0.0
    n = truncated(x * 1.4426950408889634 - 0.5)
    r = fma_f64(-float(n), 1.90821492927058770002e-10, fma_f64(-float(n), 6.93147180369123816490e-01, x))
    p = 1.0 / 6227020800.0
    p = fma_f64(p, r, 1.0 / 479001600.0)
    p = fma_f64(p, r, 1.0 / 39916800.0)
    p = fma_f64(p, r, 1.0 / 3628800.0)
    p = fma_f64(p, r, 1.0 / 362880.0)
    p = fma_f64(p, r, 1.0 / 40320.0)
    p = fma_f64(p, r, 1.0 / 5040.0)
    p = fma_f64(p, r, 1.0 / 720.0)
    p = fma_f64(p, r, 1.0 / 120.0)
    p = fma_f64(p, r, 1.0 / 24.0)
    p = fma_f64(p, r, 1.0 / 6.0)
    p = fma_f64(p, r, 0.5)
    p = fma_f64(p, r, 1.0)
    p = fma_f64(p, r, 1.0)
    return p * power_of_two(n)


@device_function
def sigmoid(v: float) -> float:
    """Return 1 / (1 + e^-v)."""
    return divide(single(1.0), plus(single(1.0), exp(-v)))


@device_function
def silu(v: float) -> float:
    """Return v / (1 + e^-v)."""
    return divide(v, plus(single(1.0), exp(-v)))
