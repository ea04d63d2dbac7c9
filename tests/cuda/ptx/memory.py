"""Global memory: regions of this process that a kernel may touch, at their real addresses."""

from __future__ import annotations

import bisect
import ctypes
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from .errors import MemoryFault, RaceFault
from .types import UNSIGNED

Array = np.ndarray[Any, Any]
_POSITIVE: Final = np.array(2**63 - 1, "u8")
_ONE: Final = np.array(1, "u8")


@dataclass(slots=True)
class Region:
    """A piece of memory; rows(w, m) are its aligned groups of m elements of w bytes."""

    start: int
    nbytes: int
    writable: bool
    name: str
    bytes: Array
    owner: object = None
    home: object = None  # the memory that knows it, as long as it does
    writers: Array | None = None  # the block that wrote each byte in this launch, plus 1
    first: int = 0  # bytes from first to last have writers
    last: int = 0
    base: Array = field(init=False)
    _rows: dict[tuple[int, int], Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base = np.array(self.start, "u8")

    def forget(self, blocks: Array | None = None) -> None:
        """Forget which bytes were written, by some blocks or by all."""
        if self.writers is not None:
            part = self.writers[self.first : self.last]
            part[slice(None) if blocks is None else np.isin(part, blocks + 1)] = 0
        if blocks is None:
            self.first = self.last = 0

    def rows(self, width: int, count: int) -> Array:
        """Return a view, shape [groups] or [groups, count], of unsigned integers.

        Where the region begins at an odd place, that view would be no aligned one, and has no groups: the slow path
        looks after it.
        """
        if (width, count) not in self._rows:
            size = width * count
            groups = 0 if self.start % size else self.nbytes // size
            view = self.bytes[: groups * size].view(UNSIGNED[width])
            self._rows[width, count] = view.reshape(-1, count) if count > 1 else view
        return self._rows[width, count]


@dataclass(slots=True)
class Site:
    """An instruction that touches memory: how, and the region that it touched last.

    An access has count elements of width bytes; size is both together, shift its logarithm.
    """

    width: int
    count: int
    writes: bool
    region: Region | None = None
    shift: Array = field(init=False)
    back: Array = field(init=False)

    def __post_init__(self) -> None:
        shift = (self.width * self.count).bit_length() - 1
        self.shift, self.back = np.array(shift, "u8"), np.array((64 - shift) % 64, "u8")

    @property
    def size(self) -> int:
        return self.width * self.count

    def rows_of(self, offsets: Array) -> Array:
        """Turn offsets in bytes into numbers of groups; one that is not aligned or negative becomes a huge number."""
        if self.size == 1:
            return (offsets & _POSITIVE).view("i8")
        return ((offsets >> self.shift) | (offsets << self.back >> _ONE)).view("i8")


class Memory:
    """The memory that kernels may touch. An access beyond one region that lies in another is not found out.

    >>> memory = Memory()
    >>> x = memory.hold(numpy.arange(6, dtype="f4"))                      # the address of an array
    >>> memory.add(address, nbytes, writable=False, name="weights")       # memory of somebody else, who keeps it alive
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._regions: list[Region] = []
        self.watches_writes = False  # of one block into what another reads or writes
        self.read: set[int] = set()  # where the regions begin that the launch has read
        self.written: set[int] = set()

    def add(self, address: int, nbytes: int, *, writable: bool = True, name: str = "", owner: object = None) -> int:
        """Register memory and return its address; owner is kept alive. The same region may be added again."""
        if nbytes <= 0:
            raise ValueError(f"a region of {nbytes} bytes at {address:#x}: nbytes must be positive")
        place = bisect.bisect_left(self._starts, address)
        near = self._regions[max(place - 1, 0) : place + 1]  # no others can overlap: these do not
        for other in near:
            if (other.start, other.nbytes, other.writable) == (address, nbytes, writable):
                return address
            if address < other.start + other.nbytes and other.start < address + nbytes:
                raise ValueError(f"memory at {address:#x} overlaps the region at {other.start:#x}")
        raw = np.frombuffer(memoryview((ctypes.c_uint8 * nbytes).from_address(address)), "u1")
        self._starts.insert(place, address)
        self._regions.insert(place, Region(address, nbytes, writable, name, raw, owner, self))
        return address

    def hold(self, array: Array, *, writable: bool = True, name: str = "") -> int:
        """Register the memory of an array and return its address; the array is kept alive."""
        if not array.flags.c_contiguous:
            raise ValueError("an array that is not contiguous has gaps that a kernel would touch")
        if not array.nbytes:
            return array.ctypes.data  # nothing there may be touched
        return self.add(array.ctypes.data, array.nbytes, writable=writable, name=name, owner=array)

    def remove(self, address: int) -> None:
        """Forget the region that begins at an address."""
        place = bisect.bisect_left(self._starts, address)
        if place == len(self._starts) or self._starts[place] != address:
            raise ValueError(f"no region begins at {address:#x}")
        self._regions[place].home = None
        del self._starts[place], self._regions[place]

    def begin_launch(self, watches_writes: bool) -> None:
        """Forget who wrote what."""
        self.watches_writes = watches_writes
        self.read, self.written = set[int](), set[int]()
        for region in self._regions:
            region.forget()

    def publish(self, blocks: Array) -> None:
        """Let others touch what some blocks wrote."""
        for region in self._regions:
            region.forget(blocks)

    def load(self, site: Site, address: Array, blocks: Array | None) -> Array:
        """Return the elements at addresses, shape [lanes] or [lanes, count], as unsigned integers."""
        region = site.region
        if region is not None and region.home is self:  # instructions outlive launches and their memory
            rows = site.rows_of(address - region.base)
            try:
                found = region.rows(site.width, site.count).take(rows, axis=0)
            except IndexError:
                pass
            else:
                self.read.add(region.start)
                if region.last and blocks is not None:
                    self._check_reads(region, site, rows, blocks)
                return found
        region = self._only(site, address)
        if region is not None:
            site.region = region
            return self.load(site, address, blocks)
        shape = (len(address), site.count) if site.count > 1 else (len(address),)
        found = np.empty(shape, UNSIGNED[site.width])
        for region, lanes in self._parts(site, address):
            mine = Site(site.width, site.count, site.writes, region)
            found[lanes] = self._load_bytes(mine, region, address[lanes], None if blocks is None else blocks[lanes])
        return found

    def store(self, site: Site, address: Array, value: Array, blocks: Array | None, ordinary: bool = True) -> None:
        """Write elements, shape [lanes] or [lanes, count]; lanes that write one place must write the same."""
        region = site.region
        if region is not None and region.home is self and region.writable:
            rows = site.rows_of(address - region.base)
            target = region.rows(site.width, site.count)
            try:
                target[rows] = value
            except IndexError:
                pass
            else:
                self.written.add(region.start)
                if self.watches_writes and blocks is not None:
                    self._note_writes(region, site, rows, blocks)
                if ordinary:
                    check_same(site, target, rows, value)
                return
        region = self._only(site, address)
        if region is not None:
            site.region = region
            self.store(site, address, value, blocks, ordinary)
            return
        for region, lanes in self._parts(site, address):
            mine = Site(site.width, site.count, True, region)
            part = None if blocks is None else blocks[lanes]
            if region.start % site.size:
                self.written.add(region.start)
                for n in np.flatnonzero(lanes):
                    place = int(address[n]) - region.start
                    region.bytes[place : place + site.size] = np.atleast_1d(value[n]).view("u1")
            else:
                self.store(mine, address[lanes], value[lanes], part, ordinary)

    def _load_bytes(self, site: Site, region: Region, address: Array, blocks: Array | None) -> Array:
        if region.start % site.size == 0:
            return self.load(site, address, blocks)
        self.read.add(region.start)
        places = (address - region.base).astype("i8")[:, None] + np.arange(site.size)
        found = region.bytes[places].view(UNSIGNED[site.width])
        return found if site.count > 1 else found[:, 0]

    def _only(self, site: Site, address: Array) -> Region | None:
        """Return the region in which all of some addresses lie, where the quick way is open for it."""
        low, high = int(address.min()), int(address.max())
        region = self.find(low)
        if region is None or high + site.size > region.start + region.nbytes or region.start % site.size:
            return None
        if (site.writes and not region.writable) or np.bitwise_or.reduce(address) % site.size:
            return None
        return region

    def find(self, address: int) -> Region | None:
        """Return the region that holds an address."""
        place = bisect.bisect_right(self._starts, address) - 1
        if place < 0 or address >= self._starts[place] + self._regions[place].nbytes:
            return None
        return self._regions[place]

    def _parts(self, site: Site, address: Array) -> list[tuple[Region, Array]]:
        """Return the regions that addresses lie in, each with a mask of its lanes; or say which one lies in none."""
        starts = np.array(self._starts, "u8")
        place = np.searchsorted(starts, address, side="right") - 1
        for lane, (at, value) in enumerate(zip(place.tolist(), address.tolist(), strict=True)):
            verb = "writes" if site.writes else "reads"
            what = f"{verb} {site.size} bytes at {value:#x}"
            if value % site.size:
                raise MemoryFault(f"{what}: misaligned", lane)
            near = self._regions[max(at, 0) : at + 2]
            region = self._regions[at] if at >= 0 else None
            if region is None or value + site.size > region.start + region.nbytes:
                known = "; ".join(self._describe(r, value) for r in near) or "there is no region"
                raise MemoryFault(f"{what}: out of bounds ({known})", lane)
            if site.writes and not region.writable:
                raise MemoryFault(f"{what}: {self._describe(region, value)} is read-only", lane)
        return [(self._regions[n], place == n) for n in np.unique(place).tolist()]

    @staticmethod
    def _describe(region: Region, address: int) -> str:
        name = f"{region.name}, " if region.name else ""
        return f"byte {address - region.start} of the region at {region.start:#x}, {name}{region.nbytes} bytes"

    # Blocks that touch what others wrote

    def _note_writes(self, region: Region, site: Site, rows: Array, blocks: Array) -> None:
        if region.writers is None:
            region.writers = np.zeros(region.nbytes, "u4")
        groups = region.writers[: region.nbytes // site.size * site.size].reshape(-1, site.size)
        self._check_reads(region, site, rows, blocks)
        groups[rows] = blocks[:, None] + 1
        first, last = int(rows.min()) * site.size, (int(rows.max()) + 1) * site.size
        region.first = min(region.first, first) if region.last else first
        region.last = max(region.last, last)

    def _check_reads(self, region: Region, site: Site, rows: Array, blocks: Array) -> None:
        assert region.writers is not None
        groups = region.writers[: region.nbytes // site.size * site.size].reshape(-1, site.size)
        writers = groups[rows]
        bad = ((writers != 0) & (writers != blocks[:, None] + 1)).any(axis=1)
        if bad.any():
            lane = int(bad.argmax())
            place = int(rows[lane]) * site.size
            raise RaceFault(
                f"{'writes' if site.writes else 'reads'} {site.size} bytes at {region.start + place:#x}, which block "
                f"{int(writers[lane].max()) - 1} wrote in this launch",
                lane,
            )


def check_same(site: Site, data: Array, rows: Array, value: Array) -> None:
    """Raise where a lane finds something else than it wrote: another one wrote there in the same instruction."""
    differs = data.take(rows, axis=0) != value
    if np.count_nonzero(differs):
        lane = int((differs.any(axis=1) if differs.ndim > 1 else differs).argmax())
        raise RaceFault(f"writes {site.size} bytes where another lane writes other ones in the same instruction", lane)
