"""Graphs: launches of kernels that are recorded once and done in one call of the driver."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from pio.cuda.pinned import Work
from pio.errors import DeviceError

recording: Final = threading.RLock()  # nobody may wait for all of a GPU while a graph is recorded there


class Launch(NamedTuple):
    """A kernel's launch, as ``Driver.launch`` takes it."""

    kernel: int
    grid: int
    block: int
    shared: int
    letters: str
    values: bytes


class Graph:
    """Launches that are done in one call of the driver."""

    def __init__(self, stream: Work, launches: Sequence[Launch]) -> None:
        """Record them, in a stream of its own, so that nothing that other threads do gets between them."""
        self._stream = stream
        driver = stream.gpu.enter()
        own = driver.stream()
        try:
            with recording:
                driver.begin_graph(own)
                try:
                    for kernel, grid, block, shared, letters, values in launches:
                        driver.launch(kernel, grid, block, shared, own, letters, values)
                except BaseException:
                    with suppress(DeviceError):  # it has the reason already
                        driver.end_graph_run(driver.end_graph(own))
                    raise
                self._handle = driver.end_graph(own)
        finally:
            driver.end_stream(own)

    def run(self) -> None:
        """Do them when all before them is done."""
        stream = self._stream
        stream.begin().run_graph(self._handle, stream.handle)

    def __del__(self) -> None:
        handle, stream = getattr(self, "_handle", 0), self._stream
        if handle:
            stream.drop_later(lambda: stream.gpu.enter().end_graph_run(handle))
