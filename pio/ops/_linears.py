"""Runs linear layers of one input as one job."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from pio.device import Device
from pio.kernels import launcher, sizes
from pio.ops._check import FLOATS
from pio.ops._record import record

# one module of kernels, which are switched off on a GPU by what they multiply
floats, rounded, packed = (
    launcher.module("_linears", switch) for switch in ("linear", "bfloat16_linear", "quantized_linear")
)

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
    kernels = floats if form in FLOATS else rounded if form == sizes.ROUNDED else packed
    kernels.on(device).linears[form](x, numbers.address, len(matrices), rows, k, int(add), device.threads)
