"""Patches of pictures, on tensors."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import lru_cache

from pio.dtypes import uint8
from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check, split
from pio.ops._overlap import check_same_device
from pio.ops._record import record
from pio.ops._tensors import check_writable
from pio.tensor import Tensor

kernels = launcher.module("image_patches")


def image_patches(
    frames: Tensor,
    grid: tuple[int, int, int],
    first: int = 0,
    *,
    patch: int,
    temporal: int,
    merge: int,
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor,
) -> Tensor:
    """Write some rows of the patch matrix: ``(value / 255 - mean) / std``, in the order of Qwen's image processors.

    Rows count time steps, in each the squares of merge x merge patches row by row, in each square its patches row by
    row. A row has the channels, in each the frames of the time step, in each the rows of the patch. A last time step
    that lacks frames repeats the last one, as does a picture, which has only one.

    Args:
        frames: uint8 (count, height, width, 3), contiguous.
        grid: Time steps, and patches down and across: ``(ceil(count / temporal), height / patch, width / patch)``.
        first: The row that out begins with.
        patch: Pixels along a side of a patch.
        temporal: Frames in a time step.
        merge: Patches along a side of a square.
        mean: Of each of the three channels, for values from 0 to 1.
        std: Of each of the three channels.
        out: float32 (rows, 3 * temporal * patch * patch), contiguous.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes, dtypes or sizes do not fit, or out is read-only.
    """
    check("image_patches", "frames", frames, (None, None, None, 3), uint8)
    count, height, width, _ = frames.shape
    for name, value in (("patch", patch), ("temporal", temporal), ("merge", merge)):
        if type(value) is not int or value < 1:
            raise TensorError(f"image_patches: {name} is {value!r}, expected a whole number from 1")
    side = patch * merge
    if not count or not height or not width or height % side or width % side:
        raise TensorError(
            f"image_patches: frames has shape {frames.shape}, expected at least one frame whose height and width are "
            f"multiples of patch * merge = {side}; resize it first"
        )
    fitting = -(-count // temporal), height // patch, width // patch
    if tuple(grid) != fitting:
        raise TensorError(f"image_patches: grid is {tuple(grid)}, expected {fitting} for frames {frames.shape}")
    check("image_patches", "out", out, (None, 3 * temporal * patch * patch))
    check_writable("image_patches", "out", out)
    check_same_device("image_patches", "out", out, "frames", frames)
    rows = out.shape[0]
    most = math.prod(fitting)
    if type(first) is not int or first < 0 or first + rows > most:
        raise TensorError(f"image_patches: rows {first} to {first + rows} were asked for, expected rows of 0 to {most}")
    if rows:
        shape = record(count, height, width, patch, temporal, merge, device=frames.device)
        table = record(*_table(tuple(map(float, mean)), tuple(map(float, std))), device=frames.device)
        at = out.address, frames.address, table.address, shape.address
        kernels.on(out.device).image_patches(*at, first, rows, split(out.size, out.device))
    return out


@lru_cache(64)
def _table(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[float, ...]:
    """Return what a tower sees of each byte of each channel: each step rounded to float32."""
    finite = all(map(math.isfinite, mean + std))
    if len(mean) != 3 or len(std) != 3 or not finite or not all(std):
        raise TensorError(f"image_patches: mean is {mean} and std {std}, expected three finite numbers each, std not 0")

    def single(x: float) -> float:
        return ctypes.c_float(x).value

    pairs = [(single(m), single(s)) for m, s in zip(mean, std, strict=True)]
    return tuple(single(single(single(v * (1 / 255)) - m) / s) for m, s in pairs for v in range(256))
