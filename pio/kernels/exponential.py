"""E to the power of sixteen lanes: as exact as float32 is, and as exact as a weight of seven bits needs."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from llvmlite import ir

from pio.kernels import _llvm as ll
from pio.kernels.simd import LANES, MAGIC, VEC, Vec, primitive

LOWEST: Final = -87.33654  # below it powers are no normal numbers of float32
HIGHEST: Final = 88.72283  # beyond it they are infinite
# Of degree 4 with p(0) = 1, its largest relative error in |r| <= ln 2 / 2 as small as can be (2.9e-6), by Lawson's
# weighted least squares.
COARSE: Final = (0.04151381552219391, 0.16787497699260712, 0.5000301599502563, 0.9999668002128601, 1.0)


def _emit_exp(b: Any, v: Any) -> Any:
    """2^n * p(r) with v = n ln 2 + r, |r| <= ln 2 / 2, p of degree 6."""
    shifted = ll.fma(b, v, ll.constant(1.4426950408889634), ll.constant(MAGIC))  # n in its lowest bits
    n = b.fsub(shifted, ll.constant(MAGIC))
    r = ll.fma(b, n, ll.constant(-0.693145751953125), v)
    r = ll.fma(b, n, ll.constant(-1.42860682030941723212e-6), r)
    p = _polynomial(b, r, (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0))
    inside = b.and_(b.fcmp_ordered(">=", v, ll.constant(LOWEST)), b.fcmp_ordered("<=", v, ll.constant(HIGHEST)))
    beyond = b.fmul(ll.maximum(b, v, ll.constant(0.0)), ll.constant(3e38))  # 0, inf or NaN
    return b.select(inside, _times_power(b, p, shifted), beyond)


def _emit_coarse_exp(b: Any, v: Any) -> Any:
    """The same by degree 4, and by one piece of ln 2: its error counts where the result is next to nothing."""
    shifted = ll.fma(b, v, ll.constant(1.4426950408889634), ll.constant(MAGIC))
    r = ll.fma(b, b.fsub(shifted, ll.constant(MAGIC)), ll.constant(-0.6931471805599453), v)
    power = _times_power(b, _polynomial(b, r, COARSE), shifted)
    return b.select(b.fcmp_unordered(">=", v, ll.constant(LOWEST)), power, ll.constant(0.0))


def _polynomial(b: Any, r: Any, coefficients: Sequence[float]) -> Any:
    """By Horner's rule, the highest power's coefficient first."""
    first, *others = coefficients
    p = ll.constant(first)
    for c in others:
        p = ll.fma(b, p, r, ll.constant(c))
    return p


def _times_power(b: Any, p: Any, shifted: Any) -> Any:
    """2^n p: n, the lowest bits of ``shifted``, goes into the exponent; where n is 128, p is below 1."""
    n = b.shl(b.bitcast(shifted, ll.I32X16), ir.Constant(ll.I32X16, [23] * LANES))
    return b.bitcast(b.add(b.bitcast(p, ll.I32X16), n), ll.F32X16)


def _power(x: float) -> float:
    return x if math.isnan(x) else 0.0 if x < LOWEST else math.inf if x > HIGHEST else math.exp(x)


@primitive(VEC, VEC, emit=_emit_exp)
def exp(v: Vec) -> Vec:
    """E to the power of each lane: 2e-7 relative, 0 below -87.3, inf above 88.7, NaN for NaN."""
    return Vec(_power(x) for x in v)


@primitive(VEC, VEC, emit=_emit_coarse_exp)
def coarse_exp(v: Vec) -> Vec:
    """E to the power of each lane, which is at most 0: 6e-6 relative, 0 below -87.3, NaN for NaN."""
    return Vec(_power(x) for x in v)
