"""Accesses of an instruction to a space, or to all of them by generic addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from .errors import Fault
from .lanes import Lanes
from .memory import Site

Array = np.ndarray[Any, Any]
# Where spaces begin among generic addresses, beyond every real one.
WINDOWS: Final = {"shared": 1 << 56, "local": 2 << 56, "param": 3 << 56}
_SPACES: Final = ("global", "shared", "local", "param")
_BELOW: Final = np.array(2**56 - 1, "u8")


class Access:
    """Loads or stores of one instruction: groups of count elements of width bytes."""

    def __init__(self, space: str, width: int, count: int = 1, *, writes: bool, ordinary: bool = True) -> None:
        """space: global, shared, local, param, frame (parameters of a call) or generic; ordinary: checked for races."""
        self.space, self.ordinary = space, ordinary
        self.site = Site(width, count, writes)
        self._parts: dict[str, Access] = {}

    def load(self, s: Lanes, address: Array, lanes: Array | None) -> Array:
        """Return the elements at addresses (uint64) of some lanes (None: all), shape [lanes] or [lanes, count]."""
        try:
            if self.space == "global":
                return s.memory.load(self.site, address, self._watched(s, lanes))
            if self.space != "generic":
                return s.spaces[self.space].load(self.site, address, lanes, self.ordinary)
            shape = (len(address), self.site.count) if self.site.count > 1 else (len(address),)
            found = np.empty(shape, f"u{self.site.width}")
            for access, chosen, mine, places in self._by_window(address, lanes):
                found[chosen] = access.load(s, places, mine)
            return found
        except Fault as fault:
            raise _of_batch(fault, lanes) from None

    def store(self, s: Lanes, address: Array, value: Array, lanes: Array | None) -> None:
        """Write elements, shape [lanes] or [lanes, count]."""
        try:
            if self.space == "global":
                s.memory.store(self.site, address, value, self._watched(s, lanes), self.ordinary)
            elif self.space != "generic":
                s.spaces[self.space].store(self.site, address, value, lanes, self.ordinary)
            else:
                for access, chosen, mine, places in self._by_window(address, lanes):
                    access.store(s, places, value[chosen], mine)
        except Fault as fault:
            raise _of_batch(fault, lanes) from None

    def begin_copy(self, s: Lanes, address: Array, lanes: Array | None) -> None:
        """Note that an asynchronous copy to shared memory has begun."""
        try:
            s.spaces["shared"].begin_copy(self.site, address, lanes)
        except Fault as fault:
            raise _of_batch(fault, lanes) from None

    def _watched(self, s: Lanes, lanes: Array | None) -> Array | None:
        """Return the blocks of lanes, where races of blocks are looked for."""
        if s.watched is None or not self.ordinary:
            return None
        return s.watched if lanes is None else s.watched[lanes]

    def _by_window(
        self, address: Array, lanes: Array | None
    ) -> Iterator[tuple[Access, Array | slice, Array | None, Array]]:
        """Yield an access for each space that generic addresses lie in.

        With it which of the addresses those are, the lanes they belong to, and the addresses there.
        """
        windows = (address >> np.uint64(56)).astype("i8")
        for window in np.unique(windows).tolist():
            inside = 0 < window < len(_SPACES)
            access = self._part(_SPACES[window] if inside else "global")
            if (windows == window).all():
                yield access, slice(None), lanes, address & _BELOW if inside else address
                return
            chosen = np.flatnonzero(windows == window)
            places = address[chosen] & _BELOW if inside else address[chosen]
            yield access, chosen, chosen if lanes is None else lanes[chosen], places

    def _part(self, space: str) -> Access:
        """Return the access to one space that a generic one may be."""
        if space not in self._parts:
            width, count, writes = self.site.width, self.site.count, self.site.writes
            self._parts[space] = Access(space, width, count, writes=writes, ordinary=self.ordinary)
        return self._parts[space]


def _of_batch(fault: Fault, lanes: Array | None) -> Fault:
    """Return a fault whose lane is one of the batch."""
    if not fault.of_batch and fault.lane is not None:
        fault.lane = fault.lane if lanes is None else int(lanes[fault.lane])
        fault.of_batch = True
    return fault
