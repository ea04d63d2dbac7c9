"""Red, green and blue of pixels, on tensors."""

from __future__ import annotations

import math

from pio.dtypes import float32, uint8
from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check, check_tensor, split
from pio.ops._overlap import check_apart
from pio.ops._tensors import result
from pio.tensor import Tensor

kernels = launcher.module("image_rgb")


def image_rgb(
    image: Tensor, *, background: tuple[int, int, int] = (255, 255, 255), out: Tensor | None = None
) -> Tensor:
    """Make red, green and blue of a picture: grey becomes all three, and alpha is put on a colour.

    ``out = round((alpha * value + (255 - alpha) * background) / 255)``; floats are ``round(255 * value)`` before.

    Args:
        image: uint8, or float32 from 0 to 1, (height, width, 1, 3 or 4), contiguous: grey; red, green and blue; or
            these and alpha.
        background: Red, green and blue from 0 to 255.
        out: uint8 (height, width, 3); made when not given. It must not be image.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes or dtypes do not fit, a float is beyond 0 and 1 or none, the background is no colour, or out
            shares memory with image.
    """
    check_tensor("image_rgb", "image", image)
    kind = uint8 if image.dtype is uint8 else float32
    check("image_rgb", "image", image, (None, None, None), kind)
    height, width, channels = image.shape
    if channels not in (1, 3, 4):
        raise TensorError(f"image_rgb: image has shape {image.shape}, expected (any, any, 1, 3 or 4)")
    if len(background) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in background):
        raise TensorError(f"image_rgb: background is {background!r}, expected three whole numbers from 0 to 255")
    out = result("image_rgb", out, (height, width, 3), uint8, device=image.device)
    check_apart("image_rgb", "out", out, image=image)
    if not out.size:
        return out
    red, green, blue = background
    parts = min(split(out.size, image.device), height)
    found = Tensor.from_list([[math.inf, -math.inf]] * parts, device=image.device)  # a GPU lowers and raises them
    at = out.address, image.address, found.address
    kernels.on(image.device).image_rgb(
        *at, height, width, channels, int(kind is float32), red | green << 8 | blue << 16, parts
    )
    if kind is float32:
        _check_range([v for pair in found.tolist() for v in pair])
    return out


def _check_range(found: list[float]) -> None:
    if not all(map(math.isfinite, found)):
        raise TensorError("image_rgb: image holds NaN or infinity, expected 0 to 1; look where it was computed")
    low, high = min(found), max(found)
    if low < 0.0 or high > 1.0:
        raise TensorError(
            f"image_rgb: image holds numbers from {low:g} to {high:g}, expected 0 to 1; divide those to 255 by 255"
        )
