"""Memory of this process to which bytes of a device come on their way out: those of the CPU at once, a GPU's later."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pio.device import Device
from pio.errors import OutOfMemoryError
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage

if TYPE_CHECKING:
    from pio.cuda.stream import Stream


class NoOutgoing(OutOfMemoryError):
    """The system or the GPU refuses what a GPU needs to write by itself, though the budget has room for it."""


class Outgoing(Protocol):
    """A buffer that is filled by pieces, brought, waited for and read, over and over.

    Attributes:
        view: Its bytes.
    """

    view: memoryview

    def gather(self, pieces: Sequence[tuple[int, int, int]]) -> None:
        """Take bytes as all that was asked for by now leaves them; they may change behind that, and nobody waits.

        Args:
            pieces: Of each where it is to begin in the buffer, its address and its bytes. None overlaps another.

        Raises:
            DeviceError: They lie on a GPU that cannot be used any more.
        """
        ...

    def bring(self, nbytes: int) -> None:
        """Say that the first bytes will be waited for, and nothing is gathered before; errors as above."""
        ...

    def wait(self) -> None:
        """Wait until what was brought is there; in any thread.

        Raises:
            DeviceError: It will never be.
        """
        ...


def outgoing(nbytes: int, device: Device | None, budget: MemoryBudget | None, what: str) -> Outgoing:
    """Return a buffer for bytes of a device.

    Args:
        nbytes: Its size.
        device: Where they lie; the CPU if None.
        budget: Counts it until it is let go: ``outgoing_bytes``.
        what: What it is for; named in the error.

    Raises:
        OutOfMemoryError: The budget has no room, or the system refuses; where a GPU's budget has, a ``NoOutgoing``.
    """
    stream = None if device is None else device.stream
    return _Here(nbytes, budget, what) if stream is None else _FromGpu(stream, nbytes, budget, what)


def outgoing_bytes(nbytes: int, *, on_gpu: bool) -> int:
    """Return what a buffer of that size takes: on a GPU as much there as here."""
    return 2 * nbytes if on_gpu else nbytes


class _Here:
    """Memory of the CPU, which has the bytes when ``gather`` returns."""

    def __init__(self, nbytes: int, budget: MemoryBudget | None, what: str) -> None:
        storage = Storage.allocate(nbytes, budget=budget, what=what)
        self.view, self._address = storage.memoryview(), storage.address

    def gather(self, pieces: Sequence[tuple[int, int, int]]) -> None:
        for at, address, nbytes in pieces:
            ctypes.memmove(self._address + at, address, nbytes)

    def bring(self, nbytes: int) -> None:
        pass  # it is there

    def wait(self) -> None:
        pass


class _FromGpu:
    """See ``pio.cuda.write_back``; counted by a budget."""

    def __init__(self, stream: Stream, nbytes: int, budget: MemoryBudget | None, what: str) -> None:
        self._budget, self._counted = budget, 0
        if budget is not None:
            budget.reserve(outgoing_bytes(nbytes, on_gpu=True), what)
            self._counted = outgoing_bytes(nbytes, on_gpu=True)
        try:
            back = stream.write_back(nbytes)
        except OutOfMemoryError as error:
            raise NoOutgoing(str(error)) from error
        self.view, self.gather, self.bring, self.wait = back.view, back.gather, back.bring, back.wait

    def __del__(self) -> None:
        # a signal's exception may have come before the first line of __init__, or between any two
        if counted := getattr(self, "_counted", 0):
            assert self._budget is not None
            self._budget.release(counted)
