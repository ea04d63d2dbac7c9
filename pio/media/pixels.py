"""Pixels that a program computed, as those of a picture."""

from __future__ import annotations

from pio import ops
from pio.errors import MediaError, TensorError
from pio.tensor import Tensor


def check_pixels(where: str, height: int, width: int, limit: int) -> None:
    """Raise a MediaError where there is no pixel, or more than the limit."""
    if height < 1 or width < 1:
        raise MediaError(f"{where} has {width} x {height} pixels: there is nothing to see; get or save it again")
    if height * width > limit:
        raise MediaError(f"{where} has {width} x {height} pixels, at most {limit} are accepted; make it smaller")


def of_tensor(
    x: Tensor, name: str, decode_limit: int, background: tuple[int, int, int] | None = None
) -> tuple[Tensor, str]:
    """Return a tensor's pixels as uint8 (height, width, 3) and the mode of a picture that has such.

    Args:
        x: uint8, or float32 from 0 to 1, (height, width) or (height, width, 1, 3 or 4).
        name: What messages call it.
        decode_limit: The largest height * width.
        background: The colour to put it on where it has alpha; white where None.

    Raises:
        MediaError: Another shape or dtype, numbers that are no colours, or more pixels.
    """
    where = f"{name} (a tensor)"
    channels = x.shape[2] if x.ndim == 3 else 1
    if x.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise MediaError(
            f"{where} has shape {x.shape}, expected (height, width) or (height, width, 1, 3 or 4); permute the axes"
        )
    if x.dtype.name not in ("uint8", "float32"):
        raise MediaError(
            f'{where} is {x.dtype}, expected uint8, or float32 from 0 to 1; convert it with .astype("uint8")'
        )
    height, width = x.shape[:2]
    check_pixels(where, height, width, decode_limit)
    x = x.reshape(height, width, channels).contiguous()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if channels == 3 and x.dtype.name == "uint8":
        return x, mode
    try:
        return ops.image_rgb(x, background=background or (255, 255, 255)), mode
    except TensorError as error:  # of its numbers alone: all else has been looked at
        raise MediaError(f"{where} is no picture: {error}") from error
