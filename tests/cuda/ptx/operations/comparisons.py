"""setp, set and testp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..decoder import Decoder, Step, Values, operation
from ..formats import widen
from ..lanes import Lanes
from ..operands import Sink
from ..rounding import flush
from ..types import Type

Array = np.ndarray[Any, Any]
_ORDERED: dict[str, Callable[..., Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
_UNORDERED = {f"{name}u": name for name in _ORDERED}
_JOINS: dict[str, Callable[..., Array]] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def _comparison(d: Decoder, kind: Type, name: str) -> tuple[Callable[..., Array], str]:
    """Return a comparison of arrays, and the dtype in which it wants them."""
    ftz = bool(d.take("ftz"))
    if kind.kind in ("u", "s", "b"):
        name = _UNSIGNED.get(name, name)
        if name not in _ORDERED or ftz:
            raise d.unknown()
        return _ORDERED[name], kind.dtype
    function = _float_comparison(name)
    if function is None:
        raise d.unknown()
    if kind.name == "f32":
        return ((lambda a, b: function(flush(a), flush(b))) if ftz else function), "f4"
    if kind.name == "f64":
        return function, "f8"
    if kind.name in ("f16", "bf16") and not ftz:
        return (lambda a, b: function(widen(a, kind.kind), widen(b, kind.kind))), "u2"
    raise d.unknown()


def _float_comparison(name: str) -> Callable[..., Array] | None:
    if name == "ne":
        return lambda a, b: (a < b) | (a > b)
    if name in _ORDERED:
        return _ORDERED[name]
    if name == "neu":
        return np.not_equal
    if name in _UNORDERED:
        inner = _ORDERED[_UNORDERED[name]]
        return lambda a, b: inner(a, b) | np.isnan(a) | np.isnan(b)
    if name == "num":
        return lambda a, b: ~(np.isnan(a) | np.isnan(b))
    if name == "nan":
        return lambda a, b: np.isnan(a) | np.isnan(b)
    return None


@operation("setp")
def setp(d: Decoder) -> Step:
    """Decode a comparison that gives a predicate, and perhaps its opposite, joined with a third operand."""
    d.need(3, 4)
    name = d.take(*_ORDERED, *_UNSIGNED, *_UNORDERED, "num", "nan")
    join = d.take(*_JOINS)
    kind = d.take_type()
    compare, dtype = _comparison(d, kind, name)
    first, second = d.pair(0)
    a, b = d.source(1, dtype), d.source(2, dtype)
    p, q = d.target(first, "?"), d.target(second, "?")
    if bool(join) != (len(d.operands) == 4):
        raise d.unknown()
    if not join and isinstance(second, Sink):
        if isinstance(compare, np.ufunc):
            return d.elementwise(compare, p, a, b)
        return d.computed(compare, p, a, b)
    joined = _JOINS.get(join)
    c, negated = d.predicate(3) if join else (0, False)

    def action(v: Values, s: Lanes) -> None:
        found = compare(v[a], v[b])
        other = ~found
        if joined is not None:
            more = ~v[c] if negated else v[c].copy()
            found, other = joined(found, more), joined(other, more)
        s.put(p, found)
        s.put(q, other)

    return d.same(action)


@operation("set")
def set_(d: Decoder) -> Step:
    """Decode a comparison that gives all ones (or 1.0) or zero."""
    d.need(3)
    name = d.take(*_ORDERED, *_UNSIGNED, *_UNORDERED, "num", "nan")
    result, kind = d.take_type("u32", "s32", "f32"), d.take_type()
    compare, dtype = _comparison(d, kind, name)
    yes = result.dtype
    true = np.float32(1) if yes == "f4" else np.array(-1, "i4").astype(yes)

    def function(a: Array, b: Array) -> Array:
        return np.where(compare(a, b), true, np.zeros(1, yes))

    return d.computed(function, d.target(0, yes), d.source(1, dtype), d.source(2, dtype))


_TESTS: dict[str, Callable[[Array], Array]] = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda a: ~np.isnan(a),
    "notanumber": np.isnan,
    "normal": lambda a: np.isfinite(a) & (np.abs(a) >= np.finfo(a.dtype).tiny),
    "subnormal": lambda a: (a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny),
}


@operation("testp")
def testp(d: Decoder) -> Step:
    d.need(2)
    test, kind = d.take(*_TESTS), d.take_type("f32", "f64")
    if not test:
        raise d.unknown()
    return d.computed(_TESTS[test], d.target(0, "?"), d.source(1, kind.dtype))
