"""Pinned memory: memory of this process that the system does not move, so that a GPU reads and writes it by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pio.cuda.driver import Driver
from pio.cuda.gpu import Gpu
from pio.errors import OutOfMemoryError
from pio.memory.sizes import format_bytes


class Work(Protocol):
    """A stream, as far as memory of this process has to do with it.

    Attributes:
        gpu: Whose work it is.
        handle: The driver's name for it.
    """

    gpu: Gpu
    handle: int

    def begin(self) -> Driver:
        """Return whom to ask, once what was dropped is given back."""
        ...

    def drop_later(self, release: Callable[[], object]) -> None:
        """Call this at the next call; from any thread at any moment."""
        ...


class Pinned:
    """Memory for copies of one stream, given back when the last reference dies: behind all work asked for by then.

    Attributes:
        address: Where it begins.
        nbytes: Usable bytes.
    """

    __slots__ = ("__weakref__", "_stream", "address", "nbytes")

    def __init__(self, stream: Work, nbytes: int, what: str) -> None:
        """Take it from the driver.

        Args:
            stream: Whose copies read and write it.
            nbytes: How much.
            what: What it is for, as a noun phrase; it appears in the error.

        Raises:
            OutOfMemoryError: The system gives no such memory.
        """
        self.address, self.nbytes, self._stream = 0, nbytes, stream
        try:
            self.address = stream.begin().allocate_host(max(nbytes, 1))
        except OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"the system refused {format_bytes(nbytes)} of memory that cuda:{stream.gpu.ordinal} reads by itself "
                f"(pinned memory), for {what}: free memory of this machine, raise what a container or a service may "
                "have of it, let the GPU keep more (gpu_memory), or choose a format of fewer bits"
            ) from error

    def __del__(self) -> None:
        # a signal's exception may have come before the first line of __init__, or between any two
        if address := getattr(self, "address", 0):
            stream = self._stream

            def give_back() -> None:
                driver = stream.gpu.enter()
                driver.wait(stream.handle)
                driver.free_host(address)

            stream.drop_later(give_back)
