"""ldmatrix, stmatrix, movmatrix: 8 x 8 matrices of 16 bits, spread over the lanes of a warp.

Lane n holds elements 2 (n mod 4) and the next of row n / 4. Lanes 8 i to 8 i + 7 give the addresses of the rows of
matrix i.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..access import Access
from ..decoder import Decoder, Step, Values, operation
from ..errors import BarrierFault
from ..geometry import WARP
from ..lanes import Lanes
from .loads import space_of
from .warps import aligned

Array = np.ndarray[Any, Any]


def whole_warps(s: Lanes) -> Array:
    """Return the numbers of active warps, all of whose lanes must be active."""
    found = s.complete_warps()
    if found is None:
        active = s.by_warp(s.mask)
        warp = int((active.any(axis=1) & ~active.all(axis=1)).argmax())
        raise BarrierFault(f"warp {warp} of the batch does this without some of its lanes", 0)
    return found


def _decode(d: Decoder, operand: int) -> tuple[int, bool, str]:
    """Take the modifiers; return how many matrices there are, whether they are transposed, and the space."""
    if not d.take("sync") or not d.take("aligned") or not d.take("m8n8"):
        raise d.unknown()
    count, transposed = d.take("x1", "x2", "x4"), bool(d.take("trans"))
    space = space_of(d, operand)
    d.take_type("b16")
    if not count or space not in ("shared", "generic"):
        raise d.unknown()
    return int(count[1]), transposed, space


def _rows(s: Lanes, warps: Array, count: int) -> Array:
    """Return the lanes that give addresses."""
    return (warps[:, None] * WARP + np.arange(8 * count)).reshape(-1)


def _transpose(words: Array) -> Array:
    """Transpose 8 x 8 matrices held as [warps, matrices, 32] words of two elements."""
    halves = np.ascontiguousarray(words).view("u2").reshape(*words.shape[:2], 8, 8)
    return np.ascontiguousarray(halves.transpose(0, 1, 3, 2)).view("u4").reshape(words.shape)


@operation("ldmatrix")
def ldmatrix(d: Decoder) -> Step:
    d.need(2)
    count, transposed, space = _decode(d, 1)
    targets = [d.target(item, "u4") for item in d.vector(0)]
    if len(targets) != count:
        raise d.unknown()
    access, where = Access(space, 4, 4, writes=False), d.address(1)

    def work(v: Values, s: Lanes) -> None:
        warps = whole_warps(s)
        lanes = _rows(s, warps, count)
        found = access.load(s, _of(s, where(v, s), lanes), lanes).reshape(len(warps), count, WARP)
        if transposed:
            found = _transpose(found)
        for n, slot in enumerate(targets):
            s.by_warp(v[slot])[warps] = found[:, n]

    return aligned(d, work)


def _of(s: Lanes, values: Array, lanes: Array) -> Array:
    """Return the values of some lanes, of values of the active ones."""
    if s.lanes is None:
        return values[lanes]
    return values[np.searchsorted(s.lanes, lanes)]


@operation("stmatrix")
def stmatrix(d: Decoder) -> Step:
    d.need(2)
    count, transposed, space = _decode(d, 0)
    sources = [d.source(item, "u4") for item in d.vector(1)]
    if len(sources) != count:
        raise d.unknown()
    access, where = Access(space, 4, 4, writes=True), d.address(0)

    def work(v: Values, s: Lanes) -> None:
        warps = whole_warps(s)
        lanes = _rows(s, warps, count)
        words = np.stack([s.by_warp(v[slot])[warps] for slot in sources], axis=1)
        if transposed:
            words = _transpose(words)
        access.store(s, _of(s, where(v, s), lanes), words.reshape(len(lanes), 4), lanes)

    return aligned(d, work)


@operation("movmatrix")
def movmatrix(d: Decoder) -> Step:
    d.need(2)
    if not (d.take("sync") and d.take("aligned") and d.take("m8n8") and d.take("trans")):
        raise d.unknown()
    d.take_type("b16")
    target, source = d.target(0, "u4"), d.source(1, "u4")

    def work(v: Values, s: Lanes) -> None:
        warps = whole_warps(s)
        s.by_warp(v[target])[warps] = _transpose(s.by_warp(v[source])[warps][:, None])[:, 0]

    return aligned(d, work)
