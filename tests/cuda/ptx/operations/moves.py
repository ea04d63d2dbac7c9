"""mov, selp, slct, addresses of spaces, conversions of addresses."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..access import WINDOWS
from ..decoder import Decoder, Step, Values, operation
from ..lanes import Lanes
from ..operands import Immediate, Operand, Special, Vector
from ..types import Type

Array = np.ndarray[Any, Any]
_SPACES = ("global", "shared", "shared__cta", "local", "const", "param")


@operation("mov")
def mov(d: Decoder) -> Step:
    d.need(2)
    kind = d.take_type()
    target, value = d.operands
    if isinstance(target, Vector):
        return _unpack(d, kind, target.items)
    if isinstance(value, Vector):
        return _pack(d, kind, value.items)
    if isinstance(value, Special) and value.name in ("%clock", "%clock64", "%globaltimer", "%clock_hi"):
        return _clock(d, kind, value.name)
    if kind.name == "pred" and isinstance(value, Immediate):
        value = Immediate(int(bool(value.value)))
    dtype = kind.bits
    a, t = d.source(value, dtype), d.target(0, dtype)

    def whole(v: Values, s: Lanes) -> None:
        v[t][...] = v[a]

    def masked(v: Values, s: Lanes) -> None:
        np.copyto(v[t], v[a], where=s.mask)

    return Step(whole, masked)


def _pack(d: Decoder, kind: Type, items: tuple[Operand, ...]) -> Step:
    part = f"u{kind.nbytes // len(items)}"
    target, sources = d.target(0, kind.bits), [d.source(item, part) for item in items]

    def action(v: Values, s: Lanes) -> None:
        both = np.empty((s.size, len(sources)), part)
        for n, slot in enumerate(sources):
            both[:, n] = v[slot]
        s.put(target, both.view(kind.bits)[:, 0])

    return d.same(action)


def _unpack(d: Decoder, kind: Type, items: tuple[Operand, ...]) -> Step:
    part = f"u{kind.nbytes // len(items)}"
    source, targets = d.source(1, kind.bits), [d.target(item, part) for item in items]

    def action(v: Values, s: Lanes) -> None:
        parts = v[source].view(part).reshape(s.size, len(targets))
        for n, slot in enumerate(targets):
            s.put(slot, parts[:, n])

    return d.same(action)


def _clock(d: Decoder, kind: Type, name: str) -> Step:
    """Read a counter: of nanoseconds, or one that goes on with each reading."""
    target = d.target(0, kind.bits)
    most = 2 ** (8 * kind.nbytes) - 1

    def action(v: Values, s: Lanes) -> None:
        s.clock += 1
        now = time.monotonic_ns() if name == "%globaltimer" else s.clock >> (32 if name == "%clock_hi" else 0)
        s.put(target, np.array(now & most, kind.bits))

    return d.same(action)


@operation("cvta")
def cvta(d: Decoder) -> Step:
    """Decode the way from an address of a space to one of all spaces, or back (.to)."""
    d.need(2)
    back, space = d.take("to"), d.take(*_SPACES).removesuffix("__cta")
    kind = d.take_type("u32", "u64")
    if not space or kind.nbytes == 4:
        raise d.unknown()
    window = np.array(WINDOWS.get(space, 0), "u8")
    target, source = d.target(0, "u8"), d.source(1, "u8")
    return d.computed((lambda a: a - window) if back else (lambda a: a + window), target, source)


@operation("isspacep")
def isspacep(d: Decoder) -> Step:
    d.need(2)
    space = d.take(*_SPACES).removesuffix("__cta")
    number = np.uint64(WINDOWS.get(space, 0) >> 56)
    target, source = d.target(0, "?"), d.source(1, "u8")
    return d.computed(lambda a: a >> np.uint64(56) == number, target, source)


@operation("selp")
def selp(d: Decoder) -> Step:
    d.need(4)
    dtype = d.take_type().bits
    target, a, b = d.target(0, dtype), d.source(1, dtype), d.source(2, dtype)
    p, negated = d.predicate(3)
    if negated:
        a, b = b, a
    return d.computed(lambda x, y, which: np.where(which, x, y), target, a, b, p)


@operation("slct")
def slct(d: Decoder) -> Step:
    """Decode a choice by a sign."""
    d.need(4)
    ftz = d.take("ftz")
    dtype, by = d.take_type().bits, d.take_type("s32", "f32")
    sources = (d.source(1, dtype), d.source(2, dtype), d.source(3, by.dtype))
    if ftz and by.name != "f32":
        raise d.unknown()
    return d.computed(lambda x, y, c: np.where(c >= 0, x, y), d.target(0, dtype), *sources)
