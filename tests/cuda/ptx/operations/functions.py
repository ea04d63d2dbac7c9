"""neg, abs, min, max, copysign, and functions of floats: rcp, sqrt, rsqrt, ex2, lg2, sin, cos, tanh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import floats
from ..decoder import Decoder, Step, operation
from ..types import Type

Array = np.ndarray[Any, Any]


def half(d: Decoder, function: Callable[..., Any], kind: Type, *sources: int) -> Step:
    """Return the step of a function of doubles for 16-bit floats."""
    d.take("rn")
    ftz, sat, relu = bool(d.take("ftz")), bool(d.take("sat")), bool(d.take("relu"))
    if (ftz and kind.kind.startswith("bf") and d.name != "ex2") or (sat and relu):
        raise d.unknown()
    bits = kind.bits
    made = floats.half(function, kind, ftz, sat, relu)
    return d.computed(made, d.target(0, bits), *[d.source(n, bits) for n in sources])


def _unary(d: Decoder, ufunc: np.ufunc) -> Step:
    d.need(2)
    kind = d.take_type()
    if kind.is_half:
        ftz = bool(d.take("ftz"))
        bits, sign = kind.bits, 0x80008000 if kind.nbytes == 4 else 0x8000
        change = _sign_change(d.name, sign, bits)
        if ftz:
            return d.computed(floats.half(ufunc, kind, True, False, False), d.target(0, bits), d.source(1, bits))
        return d.computed(change, d.target(0, bits), d.source(1, bits))
    target, a = d.target(0, kind.dtype), d.source(1, kind.dtype)
    if kind.name == "f32" and d.take("ftz"):
        return d.computed(floats.float32(ufunc, True, False), target, a)
    return d.elementwise(ufunc, target, a)


def _sign_change(name: str, sign: int, bits: str) -> Callable[[Array], Array]:
    mask = np.array(sign, bits)
    return (lambda x: x ^ mask) if name == "neg" else (lambda x: x & ~mask)


def words(d: Decoder, ufunc: np.ufunc) -> Step | None:
    """Return the step of a function of two whole numbers of 16 bits at once, where that is what stands there."""
    name = d.take("u16x2", "s16x2")
    if not name:
        return None
    dtype = "i2" if name[0] == "s" else "u2"
    return d.computed(
        lambda x, y: ufunc(x.view(dtype), y.view(dtype)).view("u4"),
        d.target(0, "u4"),
        d.source(1, "u4"),
        d.source(2, "u4"),
    )


@operation("neg")
def neg(d: Decoder) -> Step:
    return _unary(d, np.negative)


@operation("abs")
def absolute(d: Decoder) -> Step:
    return _unary(d, np.absolute)


@operation("min", "max")
def extreme(d: Decoder) -> Step:
    d.need(3, 4)
    ufunc = np.minimum if d.name == "min" else np.maximum
    two = words(d, ufunc)
    if two is not None:
        return two
    kind = d.take_type()
    if kind.kind in ("u", "s"):
        relu = d.take("relu")
        target, a, b = d.target(0, kind.dtype), d.source(1, kind.dtype), d.source(2, kind.dtype)
        d.need(3)
        if relu:
            return d.computed(lambda x, y: np.maximum(ufunc(x, y), 0), target, a, b)
        return d.elementwise(ufunc, target, a, b)
    function = floats.minimum if d.name == "min" else floats.maximum
    if d.take("NaN"):
        function = floats.with_nan(function)
    if d.take("xorsign"):
        if not d.take("abs"):
            raise d.unknown()
        function = floats.by_larger_sign(function)
    sources = range(1, len(d.operands))
    many = function if len(d.operands) == 3 else (lambda x, y, z: function(function(x, y), z))
    if kind.is_half:
        return half(d, many, kind, *sources)
    ftz = bool(kind.name == "f32" and d.take("ftz"))
    made = floats.float32(many, ftz, False) if kind.name == "f32" else many
    return d.computed(made, d.target(0, kind.dtype), *[d.source(n, kind.dtype) for n in sources])


@operation("copysign")
def copysign(d: Decoder) -> Step:
    d.need(3)
    kind = d.take_type("f32", "f64")
    return d.computed(floats.copysign, d.target(0, kind.dtype), d.source(1, kind.dtype), d.source(2, kind.dtype))


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}


@operation(*_FUNCTIONS)
def function(d: Decoder) -> Step:
    d.need(2)
    kind, compute = d.take_type(), _FUNCTIONS[d.name]
    mode = d.take("approx", "rn", "rz", "rm", "rp")
    if (
        not mode
        or (mode != "approx" and d.name not in ("rcp", "sqrt"))
        or (mode in floats.DIRECTED and d.name != "rcp")
    ):
        raise d.unknown()
    if kind.is_half:
        if d.name not in ("ex2", "tanh"):
            raise d.unknown()
        return half(d, compute, kind, 1)
    ftz = bool(d.take("ftz"))
    target, a = d.target(0, kind.dtype), d.source(1, kind.dtype)
    if kind.name == "f64" and d.name not in ("rcp", "sqrt", "rsqrt"):
        raise d.unknown()
    if mode in floats.DIRECTED:
        quotient = floats.exactly("div", mode)
        compute = lambda x: quotient(np.ones_like(x), x)  # noqa: E731
    elif mode == "approx" and kind.name == "f32":
        compute = floats.approximate(compute)
    return d.computed(floats.float32(compute, ftz, False) if kind.name == "f32" else compute, target, a)
