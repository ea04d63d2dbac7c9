"""ld, st, prefetches."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..access import Access
from ..decoder import Decoder, Step, Values, operation
from ..lanes import Lanes
from ..operands import Address, Operand, Sink, Variable
from ..types import Type

Array = np.ndarray[Any, Any]
_SPACES = ("global", "shared", "shared__cta", "local", "const", "param", "param__entry", "param__func")
_SCOPES = ("cta", "cluster", "gpu", "sys")
_HINTS = (
    ("ca", "cg", "cs", "lu", "cv", "wb", "wt"),
    ("L1__evict_normal", "L1__evict_unchanged", "L1__evict_first", "L1__evict_last", "L1__no_allocate"),
    ("L2__64B", "L2__128B", "L2__256B"),
)
_STRONG = ("volatile", "relaxed", "acquire", "release", "mmio")


def space_of(d: Decoder, operand: int) -> str:
    """Take the space of an access: generic without a name; parameters are those of the kernel or of a call."""
    name = d.take(*_SPACES).removesuffix("__cta")
    if not name:
        return "generic"
    if name.startswith("param"):
        found = d.operands[operand]
        base = found.base if isinstance(found, Address) else None
        return d.program.area_of(base)[0] if isinstance(base, Variable) else "param"
    return "global" if name == "const" else name


def take_order(d: Decoder) -> str:
    """Take what orders or caches an access; return "" for an ordinary one, which is not for other threads to see."""
    strong = d.take(*_STRONG)
    if strong in ("relaxed", "acquire", "release") and not d.take(*_SCOPES):
        raise d.unknown()
    d.take("weak")
    d.take("nc")
    for names in _HINTS:
        d.take(*names)
    return strong


def take_policy(d: Decoder) -> None:
    """Take a cache policy, which is the last operand and has no effect here."""
    if d.take("L2__cache_hint"):
        d.source(-1, "u8")
        d.operands = d.operands[:-1]


def _vector(d: Decoder, operand: int) -> tuple[Operand, ...]:
    words = d.take("v2", "v4", "v8")
    items = d.vector(operand)
    if len(items) != int(words[1:] or 1):
        raise d.unknown()
    return items


@operation("ld", "ldu")
def load(d: Decoder) -> Step:
    take_policy(d)
    d.need(2)
    space, ordinary = space_of(d, 1), not take_order(d)
    items, kind = _vector(d, 0), d.take_type()
    if kind.nbytes * len(items) > 16:
        raise d.unknown()
    targets = [-1 if isinstance(item, Sink) else _target(d, item, kind) for item in items]
    address = d.operands[1]
    if space == "param" and isinstance(address, Address) and isinstance(address.base, Variable):
        return _load_parameter(d, address, kind, targets)
    access = Access(space, kind.nbytes, len(items), writes=False, ordinary=ordinary)
    where, signed = d.address(1), f"i{kind.nbytes}" if kind.is_signed else ""

    def action(v: Values, s: Lanes) -> None:
        found = access.load(s, where(v, s), s.lanes)
        if signed:
            found = found.view(signed)
        lanes = s.lanes
        for n, slot in enumerate(targets):
            if slot >= 0:
                column = found if len(targets) == 1 else found[:, n]
                if lanes is None:
                    v[slot][...] = column
                else:
                    v[slot][lanes] = column

    return d.same(action)


def _target(d: Decoder, item: Operand, kind: Type) -> int:
    return d.wide_target(item, kind.kind, kind.nbytes)


def _load_parameter(d: Decoder, address: Address, kind: Type, targets: list[int]) -> Step:
    """Read parameters of the kernel at a known place: they are values like any other."""
    assert isinstance(address.base, Variable)
    start = d.program.area_of(address.base)[1] + address.offset
    if start % (kind.nbytes * len(targets)) or address.offset + kind.nbytes * len(targets) > address.base.nbytes:
        raise d.unknown()
    dtype = f"i{kind.nbytes}" if kind.is_signed else f"u{kind.nbytes}"
    slots = [d.program.registers.parameter(start + n * kind.nbytes, dtype) for n in range(len(targets))]

    def action(v: Values, s: Lanes) -> None:
        for target, slot in zip(targets, slots, strict=True):
            if target >= 0:
                s.put(target, v[slot])

    return d.same(action)


@operation("st")
def store(d: Decoder) -> Step:
    take_policy(d)
    d.need(2)
    space, order = space_of(d, 0), take_order(d)
    items, kind = _vector(d, 1), d.take_type()
    if kind.nbytes * len(items) > 16:
        raise d.unknown()
    sources = [d.wide(item, kind.nbytes) for item in items]
    access = Access(space, kind.nbytes, len(items), writes=True, ordinary=not order)
    where, dtype = d.address(0), f"u{kind.nbytes}"

    def action(v: Values, s: Lanes) -> None:
        address = where(v, s)
        if order == "release":
            s.publish()
        if len(sources) == 1:
            value = s.active(v[sources[0]]).astype(dtype, copy=False)
        else:
            value = np.empty((len(address), len(sources)), dtype)
            for n, slot in enumerate(sources):
                value[:, n] = s.active(v[slot])
        access.store(s, address, value, s.lanes)

    return d.same(action)


@operation("prefetch", "prefetchu", "applypriority", "discard")
def prefetch(d: Decoder) -> Step:
    """Decode a hint; the bytes that are discarded stay."""
    d.take("global", "local", "const", "param")
    d.take("L1", "L2", "tensormap", "L2__evict_last", "L2__evict_normal")
    return d.same(lambda v, s: None)


@operation("createpolicy")
def createpolicy(d: Decoder) -> Step:
    """Decode a cache policy: a value that accesses may be given, which has no effect."""
    del d.rest[:]
    target = d.target(0, "u8")
    return d.same(lambda v, s: s.put(target, np.zeros(1, "u8")))
