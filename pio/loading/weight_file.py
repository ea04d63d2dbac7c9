"""Weights read from a file into memory of the process's own, for files that may shrink or change while in use."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary, finalize

from pio.errors import CheckpointError
from pio.loading.file_error import unreadable
from pio.memory.allocation import Allocation
from pio.memory.storage import Storage
from pio.system import HERE

PIECE: Final = 16 << 20  # bytes at once, so that Ctrl-C need not wait for a slow disk


class WeightFile:
    """An open file, parts of which are read when they are asked for; those that are in use are not read again.

    Raises:
        OSError: The system refuses another descriptor.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Read from an open file, of which this keeps a descriptor of its own."""
        self._path = path
        self._descriptor = os.dup(descriptor)
        finalize(self, os.close, self._descriptor)
        self._found = self._state()
        self._read: WeakValueDictionary[tuple[int, int], Storage] = WeakValueDictionary()

    def read(self, begin: int, end: int, *, blank: bool = False) -> Storage:
        """Return bytes of the file in memory that lives as long as someone uses it.

        Args:
            begin: The first byte.
            end: The one behind the last.
            blank: Read nothing: give zeros, which cost nothing while nobody looks at them.

        Raises:
            CheckpointError: The file cannot be read, or is not what it was when it was opened.
            OutOfMemoryError: The system refuses the memory.
        """
        storage = self._read.get((begin, end))
        if storage is None or blank:
            memory = Allocation(end - begin, what=f"weights of {self._path.name}")
            storage = Storage(memory.address, end - begin, memory, readonly=True)
            if blank:
                return storage
            self._fill((ctypes.c_ubyte * (end - begin)).from_address(memory.address), begin)
            self._read[begin, end] = storage
        return storage

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield the first ``size`` bytes of the file, some megabytes at a time, each valid until the next.

        Raises:
            CheckpointError: As ``read``.
        """
        array = (ctypes.c_ubyte * min(PIECE, size))()
        for begin in range(0, size, PIECE):
            part = (ctypes.c_ubyte * min(PIECE, size - begin)).from_buffer(array)
            self._fill(part, begin)
            yield memoryview(part).cast("B")

    def _fill(self, array: ctypes.Array[ctypes.c_ubyte], begin: int) -> None:
        done, memory = 0, memoryview(array).cast("B")
        try:
            while done < len(memory):
                count = HERE.read_at(self._descriptor, memory[done : done + PIECE], begin + done)
                if count == 0:
                    break
                done += count
            unchanged = self._state() == self._found
        except OSError as error:
            raise unreadable(self._path, error) from error
        if done < len(memory):
            raise CheckpointError(
                f"{self._path} ended at byte {begin + done} while bytes {begin} to {begin + len(memory)} were read: it "
                "was cut short after it was opened; wait until it is written completely and load it again"
            )
        if not unchanged:
            raise CheckpointError(
                f"{self._path} was changed while it was read; wait until it is written completely and load it again"
            )

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns
