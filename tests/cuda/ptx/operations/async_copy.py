"""cp.async: copies from global to shared memory, which nobody may read before they were waited for.

The source is read at once, where a wrong address is told with its line; the destination is written when the lane waits
for the group of the copy, and counts as never written until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..access import Access
from ..decoder import Decoder, Step, Values, operation
from ..errors import Fault
from ..lanes import Lanes
from ..operands import Negated, Operand, Register
from .loads import take_policy

Array = np.ndarray[Any, Any]
_SHAPES = {4: (4, 1), 8: (4, 2), 16: (4, 4)}
_NEVER = 2**62  # the group of a copy that was not committed


@dataclass(slots=True)
class Copy:
    """What an instruction copies: for each of its lanes where to, what, and the group that it belongs to."""

    access: Access
    lanes: Array
    address: Array
    value: Array
    group: Array

    def part(self, which: Array) -> Copy:
        return Copy(self.access, self.lanes[which], self.address[which], self.value[which], self.group[which])


@operation("cp")
def cp(d: Decoder) -> Step:
    if not d.take("async"):
        raise d.unknown()
    if d.take("commit_group"):
        d.need(0)
        return d.same(_commit)
    if d.take("wait_all"):
        d.need(0)
        return d.same(lambda v, s: finish(s, -1))
    if d.take("wait_group"):
        d.need(1)
        left = d.literal(0)
        if left is None:
            raise d.unknown()
        return d.same(lambda v, s: finish(s, left))
    return _copy(d)


def _copy(d: Decoder) -> Step:
    take_policy(d)
    d.need(3, 4)
    cache = d.take("ca", "cg")
    d.take("L2__64B", "L2__128B", "L2__256B")
    size = d.literal(2)
    if not cache or not d.take("shared", "shared__cta") or not d.take("global") or size not in _SHAPES:
        raise d.unknown()
    if cache == "cg" and size != 16:
        raise d.unknown()
    width, count = _SHAPES[size]
    to, source = Access("shared", width, count, writes=True), Access("global", width, count, writes=False)
    one = Access("global", 1, writes=False)
    target, origin = d.address(0), d.address(1)
    given = _size(d, d.operands[3], size) if len(d.operands) == 4 else None

    def action(v: Values, s: Lanes) -> None:
        address, start = target(v, s), origin(v, s)
        lanes = np.arange(s.size) if s.lanes is None else s.lanes
        if given is None:
            value = source.load(s, start, s.lanes)
        else:
            value = _read(s, source, one, start, given(v, s), lanes)
        to.begin_copy(s, address, s.lanes)
        s.copies.append(Copy(to, lanes, address, value, np.full(len(lanes), _NEVER)))

    return d.same(action)


def _size(d: Decoder, operand: Operand, size: int) -> Any:
    """Return what gives the bytes to read: a number, or none where a predicate says so."""
    if isinstance(operand, Negated) or (isinstance(operand, Register) and operand.type.kind == "pred"):
        slot, negated = d.predicate(operand)
        return lambda v, s: np.where(s.active(v[slot]) ^ negated, 0, size)
    slot = d.source(operand, "u4")

    def given(v: Values, s: Lanes) -> Array:
        found = s.active(v[slot]).astype("i8")
        if (found > size).any():
            lane = int((found > size).argmax())
            raise Fault(f"copies {int(found[lane])} of {size} bytes", lane)
        return found

    return given


def _read(s: Lanes, access: Access, one: Access, start: Array, sizes: Array, lanes: Array) -> Array:
    """Read as many bytes as each lane asks for, and zeros for the rest."""
    site = access.site
    found = np.zeros((len(start), site.size), "u1")
    whole = np.flatnonzero(sizes == site.size)
    if len(whole):
        loaded = access.load(s, start[whole], lanes[whole])
        found[whole] = np.ascontiguousarray(loaded).view("u1").reshape(len(whole), -1)
    for place in range(site.size):
        part = np.flatnonzero((sizes > place) & (sizes < site.size))
        if len(part):
            found[part, place] = one.load(s, start[part] + np.uint64(place), lanes[part])
    words = found.view("u4")
    return words if site.count > 1 else words[:, 0]


def _commit(v: Values, s: Lanes) -> None:
    """Close a group for each active lane."""
    for copy in s.copies:
        mine = s.mask[copy.lanes] & (copy.group == _NEVER)
        copy.group[mine] = s.groups[copy.lanes[mine]]
    s.groups[s.mask] += 1


def finish(s: Lanes, left: int) -> None:
    """Write what the active lanes have copied, all but the last groups; -1: even what is in no group."""
    kept: list[Copy] = []
    for copy in s.copies:
        done = s.mask[copy.lanes]
        if left >= 0:
            done &= copy.group < s.groups[copy.lanes] - left
        count = int(np.count_nonzero(done))
        if count == len(done):
            copy.access.store(s, copy.address, copy.value, copy.lanes)
        elif count:
            part = copy.part(done)
            part.access.store(s, part.address, part.value, part.lanes)
            kept.append(copy.part(~done))
        else:
            kept.append(copy)
    s.copies[:] = kept
