"""A segment: a safetensors file of items, each known by its kind and its key, and checked when it is read.

An item is a tensor of bytes, whose name is its kind and its key. ``__metadata__`` says of which store the file is (its
root), and of each item the checksum and the key of the one that it continues, if any. The checksum covers root, kind
and key too, so that no damage of the header gives one item out for another. CRC-32 finds damage, and every burst of up
to 32 bits of it; it is no protection against somebody who writes into the folder, which only this user may.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

from pio.errors import CheckpointError
from pio.loading.safetensors_header import parse_header
from pio.loading.safetensors_writer import header_bytes

FORMAT: Final = "pio prefix cache 1"
MAX_HEADER: Final = 1 << 20  # bytes
MAX_ITEMS: Final = 1024  # whose entries fit into such a header
KEY: Final = 32  # bytes
_NO_PARENT: Final = "-"


class SegmentError(Exception):
    """A file is no whole segment of this store; the message says why, and is for the log."""


class Item(NamedTuple):
    """What an item is known by.

    Some stand beside another one, which has the same key and is their parent: nothing continues them.

    Attributes:
        kind: What it holds, such as "block"; letters and digits.
        key: Of all that decides what it holds, 32 bytes.
        parent: Key of the item that it continues, without which nobody asks for it; None for a first one.
    """

    kind: str
    key: bytes
    parent: bytes | None = None

    @property
    def name(self) -> str:
        """Its name in a file."""
        return f"{self.kind}.{self.key.hex()}"

    @property
    def beside(self) -> bool:
        """Whether it stands beside another one."""
        return self.key == self.parent


class Stored(NamedTuple):
    """An item of a segment: where its bytes lie, counted from the start of the file, and their checksum."""

    item: Item
    begin: int
    nbytes: int
    checksum: int


class Segment:
    """What is known of a segment of this store.

    Attributes:
        name: Of its file.
        items: What it holds.
        keys: Of these, but for items that stand beside others.
        beside: Whether it holds any of these.
        begins: Whether one of them continues nothing.
        parents: Keys that its items continue and that it does not hold itself.
    """

    __slots__ = ("begins", "beside", "items", "keys", "name", "parents")

    def __init__(self, name: str, items: Sequence[Stored]) -> None:
        self.name = name
        self.items = items
        self.keys = frozenset(stored.item.key for stored in items if not stored.item.beside)
        self.beside = any(stored.item.beside for stored in items)
        self.begins = any(stored.item.parent is None for stored in items)
        self.parents = {stored.item.parent for stored in items if stored.item.parent is not None} - self.keys


def checksum(root: bytes, item: Item, pieces: Iterable[memoryview]) -> int:
    """Return the CRC-32 of an item of a store: of its name, and of its bytes, piece by piece."""
    found = crc32(root + item.name.encode())
    for piece in pieces:
        found = crc32(piece, found)
    return found


def make_header(root: bytes, items: Sequence[tuple[Item, int, int]]) -> bytes:
    """Return what a segment begins with, up to the data of its first item.

    Args:
        root: Of the store.
        items: Each with its bytes and its checksum, in the order of their data.
    """
    metadata, entries, position = {"format": FORMAT, "root": root.hex()}, dict[str, object](), 0
    for item, nbytes, found in items:
        parent = _NO_PARENT if item.parent is None else item.parent.hex()
        metadata[item.name] = f"{found:08x} {parent}"
        entries[item.name] = {"dtype": "U8", "shape": [nbytes], "data_offsets": [position, position + nbytes]}
        position += nbytes
    return header_bytes({"__metadata__": metadata, **entries})


def header_length(prefix: bytes, size: int) -> int:
    """Return the bytes of a file's header, behind its first eight.

    Args:
        prefix: The first eight.
        size: Bytes of the file.

    Raises:
        SegmentError: No segment begins so, or it ends before its header does.
    """
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 2 <= length <= MAX_HEADER:
        raise SegmentError("it does not begin as one")
    if length > size - 8:
        raise SegmentError("it was cut short")
    return length


def parse(raw: bytes, size: int, root: bytes) -> list[Stored]:
    """Return the items of a segment.

    Args:
        raw: Its header, without the eight bytes that say how long that is.
        size: Bytes of the file.
        root: Of the store.

    Raises:
        SegmentError: It is damaged, or of another store.
    """
    start = 8 + len(raw)
    try:
        entries, metadata = parse_header(raw, size - start, "")
    except CheckpointError as error:  # its words are for who has downloaded a model
        raise SegmentError("its header is damaged, or it was cut short") from error
    if metadata.pop("format", None) != FORMAT:
        raise SegmentError("it is no segment of a prefix cache of this version")
    if metadata.pop("root", None) != root.hex():
        raise SegmentError("it is of another model, or of a cache of another type")
    if entries.keys() != metadata.keys() or len(entries) > MAX_ITEMS:
        raise SegmentError("its header is damaged")
    found: list[Stored] = []
    for name, entry in entries.items():
        if entry.dtype != "U8" or entry.shape != (entry.end - entry.begin,):
            raise SegmentError("its header is damaged")
        kind, _, key = name.partition(".")
        check, _, parent = metadata[name].partition(" ")
        before = None if parent == _NO_PARENT else _bytes(parent, KEY)
        item = Item(kind, _bytes(key, KEY), before)
        found.append(Stored(item, start + entry.begin, entry.end - entry.begin, int.from_bytes(_bytes(check, 4))))
    return found


def _bytes(text: str, count: int) -> bytes:
    """Return the bytes that so many pairs of digits stand for."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != count or found.hex() != text:
        raise SegmentError("its header is damaged")
    return found
