"""Runs linear layers of one input as one job."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from pio.device import Device
from pio.kernels import launcher
from pio.ops._record import record

kernels = launcher.module("_linears")

Matrix = tuple[int, int, int, int]  # addresses of outputs, weights and bias (0: none), and how many outputs


def multiply(form: str, x: int, matrices: Sequence[Matrix], rows: int, k: int, device: Device, *, add: bool) -> None:
    """Multiply rows by matrices of one form, whose sizes and types are checked already.

    Args:
        form: Element type or format of the matrices, or ROUNDED.
        x: Address of (rows, k) as that form meets it.
        matrices: One or more; the outputs of each are float32 (rows, n).
        rows: How many.
        k: Numbers of a row.
        device: Where all of them lie; the outputs are split over its threads.
        add: Add to what the outputs hold.
    """
    numbers = record(*chain.from_iterable(matrices), device=device)
    kernels.on(device).linears[form](x, numbers.address, len(matrices), rows, k, int(add), device.threads)
