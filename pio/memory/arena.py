"""Arena: short-lived tensors out of one block, allocated once."""

from __future__ import annotations

from math import prod

from pio import dtypes
from pio.device import Device
from pio.dtypes import DType
from pio.errors import OutOfMemoryError
from pio.memory.allocation import ALIGNMENT
from pio.memory.budget import MemoryBudget
from pio.memory.layout import Shape, row_major
from pio.memory.sizes import format_bytes
from pio.memory.storage import Storage
from pio.tensor import Tensor


class Arena:
    """One block of memory from which tensors are cut one after the other, and all are taken back at once.

    Attributes:
        storage: The block.
        capacity: Bytes in total.
        used: Bytes cut off so far, padding included.
    """

    __slots__ = ("capacity", "storage", "used")

    def __init__(
        self,
        nbytes: int,
        *,
        budget: MemoryBudget | None = None,
        what: str = "an arena",
        device: Device | None = None,
    ) -> None:
        """Allocate the block; arguments and errors as in ``Storage.allocate``."""
        self.storage = Storage.allocate(nbytes, budget=budget, what=what, device=device)
        self.capacity = nbytes
        self.used = 0

    def take(self, shape: Shape, dtype: DType = dtypes.float32) -> Tensor:
        """Return a row-major tensor on the next 64-byte boundary; it holds what was there before.

        Raises:
            OutOfMemoryError: It does not fit into the rest of the block.
        """
        start = self.used + -self.used % ALIGNMENT
        end = start + prod(shape) * dtype.itemsize
        if end > self.capacity:
            raise OutOfMemoryError(
                f"an arena of {format_bytes(self.capacity)} has {format_bytes(self.capacity - self.used)} left, "
                f"too little for a {dtype} tensor of shape {shape}; make it larger or reset() it"
            )
        self.used = end
        return Tensor(self.storage, self.storage.address + start, dtype, shape, row_major(shape))

    def reset(self) -> None:
        """Take everything back; tensors taken before share their memory with those taken after."""
        self.used = 0

    def __repr__(self) -> str:
        return f"Arena(used={self.used}, capacity={self.capacity})"
