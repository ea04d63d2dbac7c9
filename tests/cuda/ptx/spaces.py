"""Memory that a block or a lane has of its own: shared, local and parameters; each access is checked."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .errors import MemoryFault
from .memory import Site, check_same
from .races import Races
from .types import UNSIGNED

Array = np.ndarray[Any, Any]
GARBAGE: Final = 0xFF  # what was never written: NaN as a float, -1 as an integer
_ALIGNMENT: Final = 16
_WRITTEN: Final = {1: 0x01, 2: 0x0101, 4: 0x01010101, 8: 0x0101010101010101}


class Space:
    """One array of bytes, a row for each block (shared), each lane (local) or one for all (parameters).

    Beside each byte stands whether it was written; a copy that is on its way makes it unwritten again.
    """

    def __init__(self, name: str, rows: int, nbytes: int, row_of: Array, *, strict: bool, warp_of: Array | None = None):
        """row_of: the row of each lane; strict: a read of what nobody wrote is an error; warp_of: to find races."""
        self.name = name
        self.nbytes = nbytes
        self.stride = max(-(-nbytes // _ALIGNMENT) * _ALIGNMENT, _ALIGNMENT)
        self.bytes = np.zeros(rows * self.stride, "u1")
        self._written = np.zeros_like(self.bytes)
        self._first = {size: row_of.astype("i8") * (self.stride // size) for size in (1, 2, 4, 8, 16)}
        self._strict = strict
        self.races = None if warp_of is None else Races(len(self.bytes), self.stride, warp_of)
        self._views: dict[tuple[int, int], tuple[Array, Array]] = {}

    def reset(self) -> None:
        self.bytes.fill(GARBAGE)
        self._written.fill(0)
        if self.races is not None:
            self.races.forget()

    def _view(self, site: Site) -> tuple[Array, Array]:
        """Return the bytes and their marks as groups; marks of 16 bytes are two words."""
        key = (site.width, site.count)
        if key not in self._views:
            data, size = self.bytes.view(UNSIGNED[site.width]), site.size
            marks = self._written.view("u8").reshape(-1, 2) if size == 16 else self._written.view(UNSIGNED[size])
            self._views[key] = (data.reshape(-1, site.count) if site.count > 1 else data, marks)
        return self._views[key]

    def rows(self, site: Site, offset: Array, lanes: Array | None) -> Array:
        """Return the numbers of groups in the whole array, for offsets (uint64) that must lie in a row."""
        rows = site.rows_of(offset)
        if rows.size and int(np.maximum.reduce(rows)) >= self.nbytes // site.size:
            self._refuse(site, offset)
        first = self._first[site.size]
        return rows + (first if lanes is None else first[lanes])

    def _refuse(self, site: Site, offset: Array) -> None:
        for lane, place in enumerate(offset.astype("u8").view("i8").tolist()):
            what = f"{'writes' if site.writes else 'reads'} {site.size} bytes of {self.name} memory at {place:#x}"
            if place % site.size:
                raise MemoryFault(f"{what}: misaligned", lane)
            if place < 0 or place + site.size > self.nbytes:
                raise MemoryFault(f"{what}: out of bounds (there are {self.nbytes} bytes)", lane)

    def load(self, site: Site, offset: Array, lanes: Array | None, ordinary: bool = True) -> Array:
        """Return elements, shape [lanes] or [lanes, count]; ordinary: not atomic, not volatile."""
        rows = self.rows(site, offset, lanes)
        data, written = self._view(site)
        if self._strict and rows.size:
            marks, whole = written.take(rows, axis=0), _WRITTEN[min(site.size, 8)]
            if int(np.minimum.reduce(marks, axis=None)) < whole:
                lane = int((marks.reshape(len(rows), -1).min(axis=1) < whole).argmax())
                what = f"reads {site.size} bytes of {self.name} memory at {int(offset[lane]):#x}"
                raise MemoryFault(f"{what} that nobody wrote, or whose copy by cp.async was not waited for", lane)
        if self.races is not None and ordinary:
            self.races.read(site, rows, lanes)
        return data.take(rows, axis=0)

    def store(self, site: Site, offset: Array, value: Array, lanes: Array | None, ordinary: bool = True) -> None:
        """Write elements, shape [lanes] or [lanes, count]; lanes that write one place must write the same."""
        rows = self.rows(site, offset, lanes)
        data, written = self._view(site)
        if self.races is not None and ordinary:
            self.races.write(site, rows, lanes)
        data[rows] = value
        written[rows] = _WRITTEN[min(site.size, 8)]
        if ordinary:
            check_same(site, data, rows, value)

    def begin_copy(self, site: Site, offset: Array, lanes: Array | None) -> None:
        """Note that a copy to some places has begun: nobody may read them before it is waited for."""
        rows = self.rows(site, offset, lanes)
        if self.races is not None:
            self.races.write(site, rows, lanes)
        self._view(site)[1][rows] = 0

    def copy(self, source: int, target: int, nbytes: int, lanes: Array | None) -> None:
        """Copy bytes within the rows of lanes, a row for each lane."""
        for marks in (self.bytes, self._written):
            table = marks.reshape(-1, self.stride)
            if lanes is None:
                table[:, target : target + nbytes] = table[:, source : source + nbytes]
            else:
                table[lanes, target : target + nbytes] = table[lanes, source : source + nbytes]

    def place(self, offset: int, value: Array, lanes: Array | None) -> None:
        """Write one value into the row of each lane."""
        where = slice(None) if lanes is None else lanes
        raw = np.ascontiguousarray(value).view("u1").reshape(len(value), -1)
        self.bytes.reshape(-1, self.stride)[where, offset : offset + raw.shape[1]] = raw
        self._written.reshape(-1, self.stride)[where, offset : offset + raw.shape[1]] = 1
