"""Memory in which a segment is put together."""

from __future__ import annotations

from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.store.segment import MAX_ITEMS, Item, Stored, checksum, make_header


class SegmentBuffer:
    """Items one behind the other, as their segment will have them."""

    def __init__(self, nbytes: int, budget: MemoryBudget | None = None) -> None:
        """Reserve memory.

        Raises:
            OutOfMemoryError: The budget or the system refuses.
        """
        self._data = Storage.allocate(nbytes, budget=budget, what="a buffer of prefix_cache_path").memoryview()
        self._items: list[tuple[Item, int, int]] = []  # with where its bytes begin and end
        self._end = 0

    def __len__(self) -> int:
        """How many items it has."""
        return len(self._items)

    @property
    def names(self) -> list[tuple[str, bytes]]:
        """Kinds and keys of its items."""
        return [(item.kind, item.key) for item, _, _ in self._items]

    def has_room(self, nbytes: int, items: int = 1) -> bool:
        """Return whether some items fit into it that have so many bytes together."""
        return self._end + nbytes <= len(self._data) and len(self._items) + items <= MAX_ITEMS

    def room(self, nbytes: int) -> memoryview:
        """Return memory for an item of so many bytes, which must fit; ``add`` has it there once they are written."""
        return self._data[self._end : self._end + nbytes]

    def add(self, item: Item, nbytes: int) -> None:
        """Have an item in it, whose bytes are in ``room``."""
        begin, self._end = self._end, self._end + nbytes
        self._items.append((item, begin, self._end))

    def finished(self, root: bytes) -> tuple[bytes, memoryview, list[Stored]]:
        """Return the header of its segment, the data behind that, and what it says of the items."""
        data = self._data
        rows = [(item, end - begin, checksum(root, item, [data[begin:end]])) for item, begin, end in self._items]
        header = make_header(root, rows)
        stored = [
            Stored(item, len(header) + begin, nbytes, found)
            for (item, nbytes, found), (_, begin, _) in zip(rows, self._items, strict=True)
        ]
        return header, data[: self._end], stored

    def clear(self) -> None:
        """Have it empty."""
        self._items.clear()
        self._end = 0
