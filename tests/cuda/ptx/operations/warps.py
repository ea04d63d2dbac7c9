"""Operations of a warp: shfl, vote, match, redux, elect, activemask, bar.warp.sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..barriers import meet
from ..decoder import RESCHEDULE, Decoder, Step, Values, operation
from ..geometry import WARP
from ..lanes import Lanes
from ..operands import Immediate, Sink

Array = np.ndarray[Any, Any]
_LANE = np.arange(WARP, dtype="u4")
_BIT = np.uint32(1) << _LANE
_EVERY = 0xFFFFFFFF
POISON = np.uint32(0xFFFFA5A5)  # what a lane reads of one that does not take part: a NaN


def together(d: Decoder, members: int, known: int | None, work: Callable[[Values, Lanes], None]) -> Step:
    """Return the step of something that lanes do together as soon as all of a mask (slot members) are there."""
    pc = d.pc

    def action(v: Values, s: Lanes) -> int | None:
        if s.count == s.size and (known == _EVERY or np.bitwise_and.reduce(v[members]) == _EVERY):
            work(v, s)
            return None
        if known == _EVERY and s.complete_warps() is not None:  # nobody waits for anybody
            work(v, s)
            return None
        met = meet(s, pc, v[members])
        if met is None:
            return RESCHEDULE
        work(v, s)
        if met:
            return None
        s.pcs[s.mask] = pc + 1
        return RESCHEDULE

    return d.same(action, control=True)


def aligned(d: Decoder, work: Callable[[Values, Lanes], None]) -> Step:
    """Return the step of something that whole warps do."""
    members = d.program.registers.constant(Immediate(_EVERY), "u4")
    return together(d, members, _EVERY, work)


def _groups(v: Values, s: Lanes, members: int) -> Array:
    """Return the lanes that take part with each, as bits, [warps, 32]."""
    active = (s.by_warp(s.mask) * _BIT).sum(axis=1, dtype="u4")
    return s.by_warp(v[members]) & active[:, None]


def _inside(groups: Array) -> Array:
    """Return which lanes take part with each, [warps, 32, 32]."""
    return (groups[:, :, None] & _BIT) != 0


def sync(d: Decoder) -> Step:
    """Decode bar.warp.sync: in shared memory, warps need no barrier among their own lanes here."""
    d.need(1)
    if not d.take("sync"):
        raise d.unknown()
    return together(d, d.source(0, "u4"), d.literal(0), lambda v, s: None)


def _partners(mode: str, lane: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """Return which lane each one reads, and whether that lies in its segment."""
    b, clamp, segment = (b & 31).astype("i8"), (c & 31).astype("i8"), (c >> 8 & 31).astype("i8")
    last = (lane & segment) | (clamp & ~segment)
    if mode == "up":
        source = lane - b
        there = source >= last
    else:
        source = lane + b if mode == "down" else lane ^ b if mode == "bfly" else (lane & segment) | (b & ~segment)
        there = source <= last
    return np.where(there, source, lane), there


@operation("shfl")
def shfl(d: Decoder) -> Step:
    d.need(5)
    if not d.take("sync"):
        raise d.unknown()
    mode = d.take("up", "down", "bfly", "idx")
    d.take_type("b32")
    if not mode:
        raise d.unknown()
    first, second = d.pair(0)
    target, flag = d.target(first, "u4"), -1 if isinstance(second, Sink) else d.target(second, "?")
    a, b, c = (d.source(n, "u4") for n in (1, 2, 3))
    lane = _LANE.astype("i8")
    known = [d.literal(2), d.literal(3)]
    fixed = None
    if known[0] is not None and known[1] is not None:
        fixed = _partners(mode, lane, np.array(known[0]), np.array(known[1]))

    def work(v: Values, s: Lanes) -> None:
        values = s.by_warp(v[a])
        if fixed is not None:
            source, flags = fixed
            found = values.take(source, axis=1)
        else:
            source, flags = _partners(mode, lane, s.by_warp(v[b]), s.by_warp(v[c]))
            found = np.take_along_axis(values, source, axis=1)
        if s.complete_warps() is None:
            active = s.by_warp(s.mask)
            there = active.take(source, axis=1) if fixed else np.take_along_axis(active, source, axis=1)
            found = np.where(there, found, POISON)
        s.put(target, found.reshape(-1))
        if flag >= 0:
            s.put(flag, np.broadcast_to(flags, values.shape).reshape(-1))

    return together(d, d.source(4, "u4"), d.literal(4), work)


@operation("vote")
def vote(d: Decoder) -> Step:
    d.need(3)
    if not d.take("sync"):
        raise d.unknown()
    mode = d.take("all", "any", "uni", "ballot")
    kind = d.take_type("pred", "b32")
    if not mode or (mode == "ballot") != (kind.name == "b32"):
        raise d.unknown()
    target, (p, negated), members = d.target(0, kind.dtype), d.predicate(1), d.source(2, "u4")

    def work(v: Values, s: Lanes) -> None:
        groups = _groups(v, s, members)
        votes = s.by_warp((~v[p] if negated else v[p]) & s.mask)
        ballot = groups & (votes * _BIT).sum(axis=1, dtype="u4")[:, None]
        if mode == "ballot":
            found = ballot
        else:
            every, none = ballot == groups, ballot == 0
            found = every if mode == "all" else ~none if mode == "any" else every | none
        s.put(target, found.reshape(-1))

    return together(d, members, d.literal(2), work)


@operation("match")
def match(d: Decoder) -> Step:
    d.need(3)
    mode, is_sync = d.take("any", "all"), d.take("sync")
    kind = d.take_type("b32", "b64")
    if not mode or not is_sync:
        raise d.unknown()
    first, second = d.pair(0)
    target, flag = d.target(first, "u4"), d.target(second, "?")
    a, members = d.source(1, kind.dtype), d.source(2, "u4")

    def work(v: Values, s: Lanes) -> None:
        groups, values = _groups(v, s, members), s.by_warp(v[a])
        same = _inside(groups) & (values[:, :, None] == values[:, None, :])
        found = (same * _BIT).sum(axis=2, dtype="u4")
        every = found == groups
        s.put(target, (found if mode == "any" else np.where(every, groups, np.uint32(0))).reshape(-1))
        s.put(flag, every.reshape(-1))

    return together(d, members, d.literal(2), work)


_REDUCTIONS: dict[str, tuple[np.ufunc, Callable[[str], Any]]] = {
    "add": (np.add, lambda dtype: 0),
    "min": (np.minimum, lambda dtype: np.iinfo(dtype).max),
    "max": (np.maximum, lambda dtype: np.iinfo(dtype).min),
    "and": (np.bitwise_and, lambda dtype: np.iinfo(dtype).max),
    "or": (np.bitwise_or, lambda dtype: 0),
    "xor": (np.bitwise_xor, lambda dtype: 0),
}


@operation("redux")
def redux(d: Decoder) -> Step:
    d.need(3)
    if not d.take("sync"):
        raise d.unknown()
    name = d.take(*_REDUCTIONS)
    kind = d.take_type(*(("b32",) if name in ("and", "or", "xor") else ("u32", "s32")))
    if not name:
        raise d.unknown()
    ufunc, start = _REDUCTIONS[name]
    target, a, members = d.target(0, kind.dtype), d.source(1, kind.dtype), d.source(2, "u4")
    nothing = np.array(start(kind.dtype), kind.dtype)

    def work(v: Values, s: Lanes) -> None:
        inside = _inside(_groups(v, s, members))
        values = np.where(inside, s.by_warp(v[a])[:, None, :], nothing)
        s.put(target, ufunc.reduce(values, axis=2, dtype=kind.dtype).reshape(-1))

    return together(d, members, d.literal(2), work)


@operation("elect")
def elect(d: Decoder) -> Step:
    """Decode the election of the lowest lane."""
    d.need(2)
    if not d.take("sync"):
        raise d.unknown()
    first, second = d.pair(0)
    target, flag, members = d.target(first, "u4"), d.target(second, "?"), d.source(1, "u4")

    def work(v: Values, s: Lanes) -> None:
        leader = _inside(_groups(v, s, members)).argmax(axis=2)
        s.put(target, leader.reshape(-1))
        s.put(flag, (leader == _LANE).reshape(-1))

    return together(d, members, d.literal(1), work)


@operation("activemask")
def activemask(d: Decoder) -> Step:
    d.need(1)
    d.take_type("b32")
    target = d.target(0, "u4")

    def action(v: Values, s: Lanes) -> None:
        active = (s.by_warp(s.mask) * _BIT).sum(axis=1, dtype="u4")
        s.put(target, np.repeat(active, WARP))

    return d.same(action)
