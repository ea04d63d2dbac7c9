"""Runs linear layers of one input as one job."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from pio.device import Device
from pio.kernels import jobs, launcher, sizes
from pio.ops._check import FLOATS
from pio.ops._record import record

# one module of kernels, which are switched off on a GPU by what they multiply
floats, rounded, packed = (
    launcher.module("_linears", switch) for switch in ("linear", "bfloat16_linear", "quantized_linear")
)

Matrix = tuple[int, int, int, int]  # addresses of outputs, weights and bias (0: none), and how many outputs


class Quantizing(NamedTuple):
    """Which kernels quantize rows: one of the two, but while kernels are listed, as another step has other rows.

    Attributes:
        own: The one that multiplies them, which takes float32.
        before: One of its own, into scratch.
    """

    own: bool
    before: bool

    @classmethod
    def of(cls, rows: int, k: int, device: Device) -> Quantizing:
        """Choose: on a GPU each block quantizes few rows again, which costs less than another launch."""
        if device.stream is None:
            return cls(own=False, before=True)
        if jobs.is_listing():
            return cls(own=sizes.gpu_own(1, k), before=True)
        own = sizes.gpu_own(rows, k)
        return cls(own, not own)


def multiply(
    form: str,
    x: int,
    matrices: Sequence[Matrix],
    rows: int,
    k: int,
    device: Device,
    *,
    add: bool,
    own: bool = False,
) -> None:
    """Multiply rows by matrices of one form, whose sizes and types are checked already.

    Args:
        form: Element type or format of the matrices, or ROUNDED.
        x: Address of (rows, k) as that form meets it; float32 where ``own``.
        matrices: One or more; the outputs of each are float32 (rows, n).
        rows: How many.
        k: Numbers of a row.
        device: Where all of them lie; the outputs are split over its threads.
        add: Add to what the outputs hold.
        own: Whether the kernel quantizes the rows itself, see ``Quantizing``.
    """
    numbers = record(*chain.from_iterable(matrices), device=device)
    kernels = floats if form in FLOATS else rounded if form == sizes.ROUNDED else packed
    here = kernels.on(device)
    kernel = here.quantizing_linears if own else here.linears
    kernel[form](x, numbers.address, len(matrices), rows, k, int(add), device.threads)
