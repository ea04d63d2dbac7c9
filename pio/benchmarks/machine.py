"""What a machine does at best, to hold a model's speed against: bytes read and floating-point operations a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

from pio.device import Device
from pio.machine import available_memory
from pio.ops import roofline
from pio.tensor import Tensor

T = TypeVar("T")

BUFFER = 1 << 30  # bytes, many times any cache; a quarter of the memory where that is less
SECONDS = 0.1  # of one measurement of arithmetic
ROUNDS = 1 << 12  # of products that are tried first


class Machine:
    """Measures the machine, round by round, beside whatever else is measured."""

    def __init__(self, device: Device, buffer_bytes: int = BUFFER, *, arithmetic: str = "float32") -> None:
        """Take the buffer that is read, and touch all of it.

        Args:
            device: Where to measure.
            buffer_bytes: Size of the buffer; at most a quarter of the free memory is taken.
            arithmetic: What is multiplied: float32, bfloat16, or int8, which quantized layers compute with.
        """
        free = available_memory() if device.stream is None else device.stream.room()
        nbytes = buffer_bytes if free is None else min(buffer_bytes, free // 4)
        self._buffer = Tensor.empty((max(1, nbytes // 4),), device=device).fill_(1.0)
        self._device = device
        self._arithmetic = arithmetic
        self._rounds = ROUNDS
        while seconds(self._compute) < SECONDS / 4:
            self._rounds *= 2
        self._rounds *= 4

    @property
    def buffer_bytes(self) -> int:
        """Size of the buffer."""
        return self._buffer.nbytes

    def bandwidth(self) -> float:
        """Read the buffer three times; return bytes a second."""
        return 3 * self._buffer.nbytes / sum(seconds(self._read) for _ in range(3))

    def operations(self) -> float:
        """Multiply and add in registers three times; return operations a second."""
        return 3 * self._compute() / sum(seconds(self._compute) for _ in range(3))

    def _read(self) -> None:
        roofline.read_all(self._buffer)
        self._wait()

    def _compute(self) -> int:
        operations = self._products()
        self._wait()
        return operations

    def _wait(self) -> None:
        """Wait for a GPU, which is only asked by then."""
        if self._device.stream is not None:
            self._device.stream.wait()

    def _products(self) -> int:
        if self._arithmetic == "int8" and self._device.stream is None and roofline.multiplies_tiles():
            return roofline.tile_all(self._rounds, device=self._device)[1]
        if self._arithmetic == "int8":
            return roofline.dot_all(self._rounds, device=self._device)[1]
        if self._arithmetic == "bfloat16":
            return roofline.pair_all(self._rounds, device=self._device)[1]
        return roofline.fma_all(self._rounds, 0.5, 0.5, device=self._device)[1]


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def around(speed: Callable[[], float], work: Callable[[], T]) -> tuple[T, float]:
    """Do the work; return its result and the machine's speed around it, which in shared machines varies in seconds."""
    before = speed()
    done = work()
    return done, (before + speed()) / 2


def ratio(some: list[float], others: list[float]) -> float:
    """Return the median of the ratios, round by round."""
    return median(a / b for a, b in zip(some, others, strict=True))
