"""Which warp touched which byte of shared memory since the last barrier.

All lanes of a block go in step here, so that a missing barrier would change no value; on a GPU warps go as they like.
Reads and writes of two warps that touch one byte, at least one of them a write, with no barrier between are therefore
errors, whatever the values. Two that write the same value in one instruction are let be.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .errors import RaceFault
from .memory import Site
from .types import UNSIGNED

Array = np.ndarray[Any, Any]
_MANY: Final = 255  # warps that read one byte
_EACH: Final = {1: np.uint8(1), 2: np.uint16(0x0101), 4: np.uint32(0x01010101), 8: np.uint64(0x0101010101010101)}


class Races:
    """Two marks beside each byte, the warp that wrote it and the one that read it, plus 1; 0 for none."""

    def __init__(self, nbytes: int, stride: int, warp_of: Array) -> None:
        self._writers = np.zeros(nbytes, "u1")
        self._readers = np.zeros(nbytes, "u1")
        self._stride = stride
        self._warps = (warp_of + 1).astype("u1")
        self._patterns = {size: self._warps.astype(UNSIGNED[size]) * each for size, each in _EACH.items()}
        self._touched = False

    def forget(self, rows: Array | None = None) -> None:
        """A barrier was passed by all blocks, or by those of some rows."""
        if not self._touched:
            return
        for marks in (self._writers, self._readers):
            if rows is None:
                marks.fill(0)
            else:
                marks.reshape(-1, self._stride)[rows] = 0
        self._touched = rows is not None

    @staticmethod
    def _groups(marks: Array, size: int) -> Array:
        return marks.view("u8").reshape(-1, 2) if size == 16 else marks.view(UNSIGNED[size])

    def _mine(self, size: int, lanes: Array | None) -> Array:
        pattern = self._patterns[min(size, 8)]
        if lanes is not None:
            pattern = pattern[lanes]
        return pattern[:, None] if size == 16 else pattern

    def read(self, site: Site, rows: Array, lanes: Array | None) -> None:
        """Note reads of groups, and raise where another warp wrote one."""
        self._touched = True
        self._check(site, rows, lanes, self._writers, "reads", "wrote")
        readers, mine = self._groups(self._readers, site.size), self._mine(site.size, lanes)
        before = readers.take(rows, axis=0)
        if not np.count_nonzero(before != mine):
            return
        readers[rows] = mine
        if np.count_nonzero(before):
            self._merge(site, rows, lanes, before)
        several = readers.take(rows, axis=0) != mine
        if np.count_nonzero(several) and not np.count_nonzero(before):
            several = several.any(axis=1) if several.ndim > 1 else several
            self._readers.reshape(-1, site.size)[rows[several]] = _MANY

    def _merge(self, site: Site, rows: Array, lanes: Array | None, before: Array) -> None:
        """Note reads of groups that have readers, byte for byte."""
        warps = (self._warps if lanes is None else self._warps[lanes])[:, None]
        was = np.ascontiguousarray(before).view("u1").reshape(-1, site.size)
        now = np.where((was != 0) & (was != warps), _MANY, warps).astype("u1")
        groups = self._readers.reshape(-1, site.size)
        groups[rows] = now
        several = (groups[rows] != now) | (now == _MANY)
        group, place = np.nonzero(several)
        groups[rows[group], place] = _MANY

    def write(self, site: Site, rows: Array, lanes: Array | None) -> None:
        """Note writes of groups, and raise where another warp wrote or read one."""
        self._touched = True
        self._check(site, rows, lanes, self._writers, "writes", "wrote")
        self._check(site, rows, lanes, self._readers, "writes", "read")
        self._groups(self._writers, site.size)[rows] = self._mine(site.size, lanes)

    def _check(self, site: Site, rows: Array, lanes: Array | None, marks: Array, verb: str, did: str) -> None:
        if not np.count_nonzero(self._groups(marks, site.size).take(rows, axis=0)):
            return
        found = marks.reshape(-1, site.size)[rows]
        warps = self._warps if lanes is None else self._warps[lanes]
        bad = ((found != 0) & (found != warps[:, None])).any(axis=1)
        if bad.any():
            raise RaceFault(
                f"{verb} {site.size} bytes of shared memory that another warp {did} with no barrier between",
                int(bad.argmax()),
            )
