"""Memory in which a segment is put together."""

from __future__ import annotations

from collections.abc import Sequence

from pio.device import Device
from pio.memory.budget import MemoryBudget
from pio.memory.outgoing import outgoing
from pio.store.segment import MAX_ITEMS, Item, Stored, checksum, make_header


class SegmentBuffer:
    """Items one behind the other, as their segment will have them."""

    def __init__(self, nbytes: int, budget: MemoryBudget | None = None, device: Device | None = None) -> None:
        """Reserve memory.

        Args:
            nbytes: For the data of all items.
            budget: Counts it.
            device: Where items lie before; the CPU if None.

        Raises:
            OutOfMemoryError: The budget or the system refuses; see ``pio.memory.outgoing``.
        """
        self._memory = outgoing(nbytes, device, budget, "a buffer of prefix_cache_path")
        self._items: list[tuple[Item, int, int]] = []  # with where its bytes begin and end
        self._pieces: list[tuple[int, int, int]] = []  # of those that were added last
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
        return self._end + nbytes <= len(self._memory.view) and len(self._items) + items <= MAX_ITEMS

    def add(self, item: Item, pieces: Sequence[tuple[int, int]]) -> None:
        """Have an item in it, which must fit; ``gather`` is to follow before its bytes change.

        Args:
            item: What it is.
            pieces: Addresses and sizes of what it consists of.
        """
        begin = self._end
        for address, nbytes in pieces:
            self._pieces.append((self._end, address, nbytes))
            self._end += nbytes
        self._items.append((item, begin, self._end))

    def gather(self) -> None:
        """Take the bytes of all that was added; nobody waits.

        Raises:
            DeviceError: They cannot be read any more; the buffer is to be cleared.
        """
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._memory.gather(pieces)

    def bring(self) -> None:
        """Say that nothing more is added before it was written; nobody waits, and errors are those of ``gather``."""
        self._memory.bring(self._end)

    def wait(self) -> None:
        """Wait until all bytes are there, before anybody reads them or they are forgotten.

        Raises:
            DeviceError: They will never be.
        """
        self._memory.wait()

    def finished(self, root: bytes) -> tuple[bytes, memoryview, list[Stored]]:
        """Return the header of its segment, the data behind that, and what it says of the items; all is there."""
        data = self._memory.view
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
        self._pieces.clear()
        self._end = 0
