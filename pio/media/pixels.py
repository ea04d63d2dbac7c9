"""Pixels that a program computed, as those of a picture."""

from __future__ import annotations

from pio import ops
from pio.errors import MediaError
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
    whole = x if x.dtype.name == "uint8" else _bytes_of(x, where)
    if channels == 3:
        return whole, "RGB"
    out = Tensor.empty((height, width, 3), "uint8")
    if channels == 1:
        for c in range(3):
            out[:, :, c : c + 1].copy_(whole)
        return out, "L"
    return _put_on(whole.astype("float32"), background or (255, 255, 255)), "RGBA"


def _bytes_of(x: Tensor, where: str) -> Tensor:
    """Return numbers from 0 to 1 as bytes."""
    flat = x.reshape(-1, x.shape[1] * x.shape[2])
    bad = ops.first_non_finite(flat)
    if bad is None:
        # whatever is beyond 0 and 1 is changed by being cut there, which conversion to bytes does
        lowest = ops.top_k(ops.mul(flat, Tensor.full(flat.shape, -1.0)), 1)[0]
        highest = ops.top_k(flat, 1)[0]
        low, high = -max(v for row in lowest.tolist() for v in row), max(v for row in highest.tolist() for v in row)
        if low < 0.0 or high > 1.0:
            raise MediaError(f"{where} holds numbers from {low:g} to {high:g}, expected 0 to 1; divide them by 255")
        half = Tensor.full(x.shape, 0.5)
        return ops.add(ops.mul(x, Tensor.full(x.shape, 255.0)), half).astype("uint8")
    raise MediaError(f"{where} holds NaN or infinity, expected numbers from 0 to 1; look where it was computed")


def _put_on(rgba: Tensor, background: tuple[int, int, int]) -> Tensor:
    """Return alpha * colour + (1 - alpha) * background, rounded: float32 (height, width, 4) from 0 to 255 -> uint8."""
    height, width, _ = rgba.shape
    alpha = ops.mul(rgba[:, :, 3:].contiguous(), Tensor.full((height, width, 1), 1 / 255))
    rest = ops.add(ops.mul(alpha, Tensor.full(alpha.shape, -1.0)), Tensor.full(alpha.shape, 1.0))
    out = Tensor.empty((height, width, 3), "uint8")
    for c in range(3):
        colour = ops.mul(rgba[:, :, c : c + 1].contiguous(), alpha)
        under = ops.mul(rest, Tensor.full(rest.shape, float(background[c])))
        total = ops.add(ops.add(colour, under), Tensor.full(rest.shape, 0.5))
        out[:, :, c : c + 1].copy_(total.astype("uint8"))
    return out
