"""Stores of small items, and programs that use one in a process of their own."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import environment

from pio.store.disk_store import DiskStore
from pio.store.segment import Item
from pio.store.segment_buffer import SegmentBuffer

ROOT, ITEM, WAIT = bytes(range(32)), 3000, 60.0
LIMIT = 1 << 20


def run(body: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with this module as ``here`` and small segments."""
    begin = f"""
    import os, sys
    from pathlib import Path
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import stores as here
    from pio.store import disk_store
    disk_store.SEGMENT, disk_store.LOOK = 4 * here.ITEM, 0.0
    """
    program = textwrap.dedent(begin) + textwrap.dedent(body)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)


def make(folder: Path, root: bytes = ROOT, limit: int = LIMIT, **options: Any) -> DiskStore:
    return DiskStore(folder, root, limit, ITEM, **options)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def data(number: int) -> bytearray:
    return bytearray((number * 7 + i) % 251 for i in range(ITEM))


def add(buffer: SegmentBuffer, item: Item, held: bytes | bytearray | memoryview) -> None:
    """Copy an item to a buffer."""
    memory = bytearray(held)
    buffer.add(item, [(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory))])
    buffer.gather()


def put(store: DiskStore, *numbers: int, chain: bool = True) -> None:
    """Write items as one segment; each continues the one with the number below."""
    buffer = store.take_buffer()
    assert buffer is not None
    for number in numbers:
        add(buffer, Item("block", key(number), key(number - 1) if chain and number else None), data(number))
    store.put_buffer(buffer)
    assert store.wait(WAIT)


def get(store: DiskStore, number: int) -> bytes | None:
    place = store.find("block", key(number))
    target = bytearray(ITEM)
    if place is None or not store.read([(place, [memoryview(target)[:1234], memoryview(target)[1234:]])]):
        return None
    return bytes(target)


def holds(store: DiskStore, *numbers: int) -> bool:
    return all(get(store, number) == data(number) for number in numbers)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def put_states(store: DiskStore, number: int) -> None:
    """Write what stands beside an item, in two parts."""
    buffer = store.take_buffer()
    assert buffer is not None and buffer.has_room(ITEM, 2)
    held = memoryview(data(1000 + number))
    for kind, part in (("states0", held[:777]), ("states1", held[777:])):
        add(buffer, Item(kind, key(number), key(number)), part)
    store.put_buffer(buffer)
    assert store.wait(WAIT)


def flip(position: int) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        held = bytearray(file.read_bytes())
        held[position] ^= 0x10
        file.write_bytes(held)

    return damage
