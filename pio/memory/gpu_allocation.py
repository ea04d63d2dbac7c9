"""Memory of a GPU that pio takes from its driver, counted by a budget, and memory there of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pio.errors import ConfigError
from pio.memory.budget import MemoryBudget

if TYPE_CHECKING:
    from pio.cuda.stream import Stream


class GpuAllocation:
    """Zeroed memory of a GPU, given back when the last reference dies: behind all work that was asked for by then.

    Attributes:
        address: Where it starts, a multiple of 256.
        nbytes: Usable bytes.
        shared: Whether another library got the address.
    """

    __slots__ = ("__weakref__", "_budget", "_stream", "address", "nbytes", "shared")

    def __init__(self, stream: Stream, nbytes: int, budget: MemoryBudget | None = None, what: str = "a tensor") -> None:
        """Allocate ``nbytes`` zero bytes, charged to ``budget`` if there is one.

        Raises:
            OutOfMemoryError: The budget or the GPU refuses.
            ConfigError: The size is negative.
            DeviceError: The GPU cannot be used any more.
        """
        self.address, self.nbytes, self.shared = 0, nbytes, False
        self._budget: MemoryBudget | None = None
        if nbytes < 0:
            raise ConfigError(f"cannot allocate {nbytes} bytes for {what}")
        if budget is not None:
            budget.reserve(nbytes, what)
            self._budget = budget
        self._stream = stream
        self.address = stream.allocate(nbytes, what)

    def __del__(self) -> None:
        # a signal's exception may have come before the first line of __init__, or between any two
        if address := getattr(self, "address", 0):
            self._stream.drop(address, shared=self.shared)
        if (budget := getattr(self, "_budget", None)) is not None:
            budget.release(self.nbytes)


class Foreign:
    """Memory of a GPU that another library lent; it is given back when the last reference dies, behind all work on it.

    Attributes:
        shared: Whether a third library got the address from pio; it keeps this object.
    """

    __slots__ = ("__weakref__", "_release", "_stream", "shared")

    def __init__(self, stream: Stream, release: Callable[[], object]) -> None:
        """Take over what is called to give it back."""
        self._stream, self._release, self.shared = stream, release, False

    def __del__(self) -> None:
        self._stream.drop_foreign(self._release)
