"""What is computed to check a GPU: an operation at some sizes, made on the device that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pio import ops
from pio.benchmarks.gpu.numbers import Numbers
from pio.device import Device
from pio.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """An operation that is ready to run.

    Attributes:
        runs: Each computes the same with matrices or caches of its own.
        outs: What the first of them writes.
        nbytes: Bytes of matrices, caches or states that each moves.
        products: Multiply-adds of each.
        reset: Brings what the first changes back to where it was.
    """

    runs: Sequence[Callable[[], object]]
    outs: Sequence[Tensor]
    nbytes: float = 0.0
    products: float = 0.0
    reset: Callable[[], object] = field(default=lambda: None)

    def once(self) -> list[Tensor]:
        """Run the first from its beginning, and return copies on the CPU of what it wrote."""
        self.reset()
        self.runs[0]()
        return [out.to("cpu") if out.device.stream is not None else out.clone() for out in self.outs]


@dataclass(frozen=True, slots=True)
class Subject:
    """An operation at some sizes.

    Attributes:
        name: What it is, with its sizes.
        make: Makes it on the device of the numbers.
        within: How far a GPU's results may be from the CPU's, by the length of both as vectors; 0 is the same bits.
        decodes: Whether a token of an answer has it, so that its share of the bandwidth counts.
    """

    name: str
    make: Callable[[Numbers], Work]
    within: float
    decodes: bool = False


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return how far numbers on the CPU are from others, by the length of both as vectors; NaN where some are NaN."""
    there = Device("cpu")
    a, b = (x.reshape(-1).astype("float32") if x.dtype.name != "float32" else x.reshape(-1) for x in (found, wanted))
    minus = ops.mul(b, Tensor.full(b.shape, -1.0, device=there))
    return math.sqrt(_squares(ops.add(a, minus))) / max(math.sqrt(_squares(b)), 1e-30)


def _squares(x: Tensor) -> float:
    n = x.size
    return ops.matmul(x.reshape(1, n), x.reshape(n, 1)).item() if n else 0.0


def same_bits(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Return whether tensors on the CPU hold the same bits."""
    return all(a.memoryview().tobytes() == b.memoryview().tobytes() for a, b in zip(one, other, strict=True))
