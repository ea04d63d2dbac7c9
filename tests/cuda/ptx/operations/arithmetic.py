"""add, sub, mul, mad, fma, div, rem, sad, and carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import floats, integers
from ..decoder import Decoder, Step, Values, operation
from ..errors import Fault
from ..lanes import Lanes
from ..rounding import canonical, fma32, fma64
from ..types import Type
from .functions import half, words

Array = np.ndarray[Any, Any]
_CARRY = "CC"


def _binary(ufunc: np.ufunc, name: str) -> Callable[[Decoder], Step]:
    def decode(d: Decoder) -> Step:
        d.need(3)
        two = words(d, ufunc) if name == "add" else None
        if two is not None:
            return two
        kind = d.take_type()
        if kind.kind in ("u", "s", "b"):
            return _integer(d, ufunc, name, kind)
        if kind.is_half:
            return half(d, ufunc, kind, 1, 2)
        mode = d.take("rn", "rz", "rm", "rp") or "rn"
        ftz, sat = bool(d.take("ftz")), bool(d.take("sat"))
        target, a, b = d.target(0, kind.dtype), d.source(1, kind.dtype), d.source(2, kind.dtype)
        if kind.name == "f64":
            if ftz or sat:
                raise d.unknown()
            if mode != "rn":
                return d.computed(floats.exactly(name, mode), target, a, b)
            return d.elementwise(ufunc, target, a, b)
        if mode == "rn" and not ftz and not sat:
            return d.elementwise(lambda x, y, out=None: canonical(ufunc(x, y, out=out)), target, a, b)
        function = ufunc if mode == "rn" else floats.directed(name, mode)
        return d.computed(floats.float32(function, ftz, sat), target, a, b)

    return decode


def _integer(d: Decoder, ufunc: np.ufunc, name: str, kind: Type) -> Step:
    """Return the step of a sum, difference or product of whole numbers."""
    dtype = kind.dtype
    if name == "mul":
        part = d.take("lo", "hi", "wide")
        if part == "wide":
            target = d.target(0, f"{dtype[0]}{2 * kind.nbytes}")
            return d.computed(integers.wide, target, d.source(1, dtype), d.source(2, dtype))
        target, a, b = d.target(0, dtype), d.source(1, dtype), d.source(2, dtype)
        if not part:
            raise d.unknown()
        return d.elementwise(ufunc, target, a, b) if part == "lo" else d.computed(integers.high, target, a, b)
    target, a, b = d.target(0, dtype), d.source(1, dtype), d.source(2, dtype)
    if d.take("sat"):
        if kind.name != "s32":
            raise d.unknown()
        return d.computed(integers.add_saturated if name == "add" else integers.subtract_saturated, target, a, b)
    if d.take("cc"):
        return _carried(d, name, kind, takes=False, gives=True)
    return d.elementwise(ufunc, target, a, b)


operation("add")(_binary(np.add, "add"))
operation("sub")(_binary(np.subtract, "sub"))
operation("mul")(_binary(np.multiply, "mul"))


def _carried(d: Decoder, name: str, kind: Type, takes: bool, gives: bool) -> Step:
    """Return the step of a sum or difference that takes or gives a carry."""
    dtype = f"u{kind.nbytes}"
    target, a, b = d.target(0, dtype), d.source(1, dtype), d.source(2, dtype)
    carry = d.program.registers.register(_CARRY, 1, "?")

    def action(v: Values, s: Lanes) -> None:
        x, y = v[a], v[b]
        more = v[carry].astype(dtype) if takes else np.zeros(s.size, dtype)
        if name == "add":
            part = x + y
            found = part + more
            out = (part < x) | (found < part)
        else:
            part = x - y
            found = part - more
            out = (x < y) | (part < more)
        s.put(target, found)
        if gives:
            s.put(carry, out)

    return d.same(action)


@operation("addc")
def addc(d: Decoder) -> Step:
    d.need(3)
    return _carried(d, "add", d.take_type("u32", "s32", "u64", "s64", "b32"), True, bool(d.take("cc")))


@operation("subc")
def subc(d: Decoder) -> Step:
    d.need(3)
    return _carried(d, "sub", d.take_type("u32", "s32", "u64", "s64", "b32"), True, bool(d.take("cc")))


@operation("mad", "madc", "fma")
def mad(d: Decoder) -> Step:
    d.need(4)
    kind = d.take_type()
    if kind.kind in ("u", "s"):
        return _integer_mad(d, kind)
    if d.name == "madc":
        raise d.unknown()
    if kind.is_half:
        return half(d, floats.fma_parts, kind, 1, 2, 3)
    mode = d.take("rn", "rz", "rm", "rp") or "rn"
    ftz, sat = bool(d.take("ftz")), bool(d.take("sat"))
    target = d.target(0, kind.dtype)
    a, b, c = (d.source(n, kind.dtype) for n in (1, 2, 3))
    if kind.name == "f64":
        if ftz or sat:
            raise d.unknown()
        return d.computed(fma64 if mode == "rn" else floats.exactly("fma", mode), target, a, b, c)
    if mode != "rn" or ftz or sat:
        function = fma32 if mode == "rn" else floats.directed("fma", mode)
        return d.computed(floats.float32(function, ftz, sat), target, a, b, c)

    def whole(v: Values, s: Lanes) -> None:
        fma32(v[a], v[b], v[c], v[target])

    return Step(whole, d.computed(fma32, target, a, b, c).masked)


def _integer_mad(d: Decoder, kind: Type) -> Step:
    dtype, part = kind.dtype, d.take("lo", "hi", "wide")
    a, b = d.source(1, dtype), d.source(2, dtype)
    if not part or d.name == "fma":
        raise d.unknown()
    product = {"lo": np.multiply, "hi": integers.high, "wide": integers.wide}[part]
    gives, takes = bool(d.take("cc")), d.name == "madc"
    outer = f"{dtype[0]}{2 * kind.nbytes}" if part == "wide" else dtype
    if not gives and not takes:
        total: Callable[[Array, Array], Array] = np.add
        if d.take("sat"):
            if kind.name != "s32" or part != "hi":
                raise d.unknown()
            total = integers.add_saturated
        return d.computed(lambda x, y, z: total(product(x, y), z), d.target(0, outer), a, b, d.source(3, outer))
    if part == "wide":
        raise d.unknown()
    bits = f"u{kind.nbytes}"
    target, c, carry = d.target(0, bits), d.source(3, bits), d.program.registers.register(_CARRY, 1, "?")

    def action(v: Values, s: Lanes) -> None:
        first = product(v[a], v[b]).view(bits)
        total = first + v[c]
        out = total < first
        if takes:
            more = v[carry].astype(bits)
            total = total + more
            out = out | (total < more)
        s.put(target, total)
        if gives:
            s.put(carry, out)

    return d.same(action)


@operation("mul24", "mad24")
def mul24(d: Decoder) -> Step:
    kind, part = d.take_type("u32", "s32"), d.take("lo", "hi")
    shift = np.int64(0 if part == "lo" else 16)

    def cut(x: Array) -> Array:
        wide = x.astype("i8") & 0xFFFFFF
        return np.where(wide >= 1 << 23, wide - (1 << 24), wide) if kind.is_signed else wide

    def function(x: Array, y: Array, z: Array | None = None) -> Array:
        found = (cut(x) * cut(y) >> shift).astype("u4").view(kind.dtype)
        return found if z is None else found + z

    if not part:
        raise d.unknown()
    d.need(3 if d.name == "mul24" else 4)
    return d.computed(function, d.target(0, kind.dtype), *[d.source(n, kind.dtype) for n in range(1, len(d.operands))])


@operation("div", "rem")
def div(d: Decoder) -> Step:
    d.need(3)
    kind = d.take_type()
    target, a, b = d.target(0, kind.dtype), d.source(1, kind.dtype), d.source(2, kind.dtype)
    if kind.kind == "f":
        mode, ftz = d.take("rn", "rz", "rm", "rp", "approx", "full"), bool(d.take("ftz"))
        if not mode or d.name == "rem" or kind.name == "f16":
            raise d.unknown()
        function = floats.exactly("div", mode) if mode in floats.DIRECTED else np.divide
        if kind.name == "f64":
            return d.computed(function, target, a, b)
        return d.computed(floats.float32(function, ftz, False), target, a, b)
    quotient = integers.divide if d.name == "div" else np.fmod

    def action(v: Values, s: Lanes) -> None:
        zero = s.active(v[b]) == 0
        if np.count_nonzero(zero):
            raise Fault("divides by zero", int(zero.argmax()))
        s.put(target, quotient(v[a], v[b]))

    return d.same(action)


@operation("sad")
def sad(d: Decoder) -> Step:
    d.need(4)
    kind = d.take_type("u16", "u32", "u64", "s16", "s32", "s64")
    sources = [d.source(n, kind.dtype) for n in (1, 2, 3)]
    return d.computed(lambda x, y, z: np.maximum(x, y) - np.minimum(x, y) + z, d.target(0, kind.dtype), *sources)
