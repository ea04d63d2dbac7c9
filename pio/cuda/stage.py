"""A stage: memory that the GPU reads by itself, by way of which everything from this process goes to it.

What is to be copied is moved here first, so whoever gave it may change it at once, and nobody waits: there are two
buffers, and while the GPU reads the one the other is filled.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Final

from pio.cuda.gpu import Gpu

SIZE: Final = 8 << 20  # bytes of a buffer: from a few MiB on the bus is as fast as it can be
STEP: Final = 256  # bytes to whose multiples pieces are rounded up


class Stage:
    """Two buffers of one stream."""

    def __init__(self, gpu: Gpu, stream: int, size: int = SIZE) -> None:
        """Make it; memory is taken when something is first copied."""
        self._gpu, self._stream, self._size = gpu, stream, size
        self._buffers: list[int] = []
        self._events = [0, 0]  # behind the last copy out of each, where there was one
        self._which, self._used = 0, 0
        self._lock = threading.RLock()

    def copy_in(self, target: int, source: int, nbytes: int) -> None:
        """Copy from this process to the GPU, behind all that was asked of the stream; the source may change then."""
        driver = self._gpu.enter()
        with self._lock:
            while len(self._buffers) < 2:
                self._buffers.append(driver.allocate_host(self._size))
            while nbytes:
                if self._used == self._size:
                    self._turn()
                piece, at = min(nbytes, self._size - self._used), self._buffers[self._which] + self._used
                ctypes.memmove(at, source, piece)
                driver.copy_in(target, at, piece, self._stream)
                self._used = min(self._size, self._used + piece + -piece % STEP)
                target, source, nbytes = target + piece, source + piece, nbytes - piece

    def _turn(self) -> None:
        """Go over to the other buffer, once the GPU has read what is in there."""
        driver = self._gpu.enter()
        self._events[self._which] = driver.event(self._stream)
        self._which, self._used = 1 - self._which, 0
        event, self._events[self._which] = self._events[self._which], 0
        if event:
            driver.await_event(event)
            driver.end_event(event)

    def close(self) -> None:
        """Give the memory back; all work of the stream is done."""
        driver = self._gpu.enter()
        with self._lock:
            for event in filter(None, self._events):
                driver.end_event(event)
            while self._buffers:
                driver.free_host(self._buffers.pop())
            self._events = [0, 0]
            self._which = self._used = 0
