"""Pictures of another size, on tensors."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

from pio.device import Device
from pio.dtypes import float32, int32, uint8
from pio.errors import TensorError
from pio.kernels import launcher
from pio.kernels.sizes import LANES, PIXELS, RESIZE_PARTS
from pio.ops._check import check, check_tensor, split
from pio.ops._overlap import check_apart
from pio.ops._tensors import result
from pio.tensor import Tensor

kernels = launcher.module("image_resize")

Filter = Literal["bicubic", "bilinear"]
SUPPORT: dict[str, float] = {"bicubic": 2.0, "bilinear": 1.0}  # how far the filter reaches, in pixels
LONGEST = 1 << 24  # pixels along a side: the places of more are no int32 in bytes
FLOATS, WHOLE, SPREAD = 0, 1, 2  # how weights are laid out


class _Weights(NamedTuple):
    """What the pixels of one pass are made of.

    Attributes:
        values: float32 or int32 (size, taps), or int32 (size, taps / 5, 16).
        bounds: int32 (size, 2).
        taps: Weights for each pixel, zeros included.
    """

    values: Tensor
    bounds: Tensor
    taps: int


def image_resize(
    image: Tensor,
    height: int,
    width: int,
    *,
    filter: Filter = "bicubic",
    antialias: bool = True,
    out: Tensor | None = None,
) -> Tensor:
    """Resize a picture: ``out[y, x] = sum_i,j weight_y[i] * weight_x[j] * image[y0 + i, x0 + j]``.

    Of uint8 the result is, to the bit, what Pillow's ``Image.resize`` makes of a picture without alpha: weights have
    22 bits behind the point, and there are bytes between the passes. A pass that changes nothing is skipped. As in
    Pillow from version 13, columns come first where the height shrinks by more than twice as many pixels as the width.

    Args:
        image: uint8 or float32 (h, w, channels), contiguous; channels are resized each for itself.
        height: Rows of the result.
        width: Columns of the result.
        filter: "bicubic" (the cubic convolution with a = -1/2) or "bilinear".
        antialias: Whether the filter becomes wider where the picture shrinks, as Pillow's does, so that every pixel
            counts; without, only those next to a point do.
        out: Of image's dtype (height, width, channels); made when not given. It must not be image.

    Returns:
        ``out``. Bicubic float32 may leave the range of the picture's numbers; bytes are clipped.

    Raises:
        TensorError: Shapes, dtypes or sizes do not fit, the filter is unknown, or out shares memory with image.
    """
    check_tensor("image_resize", "image", image)
    kind = uint8 if image.dtype is uint8 else float32
    check("image_resize", "image", image, (None, None, None), kind)
    rows, columns, channels = image.shape
    _check_sizes(image.shape, height, width, filter)
    out = result("image_resize", out, (height, width, channels), kind, device=image.device)
    check_apart("image_resize", "out", out, image=image)
    if not out.size:
        return out
    if width == columns and height == rows:
        return out.copy_(image)
    how = filter == "bicubic", antialias
    if width == columns:
        _resize_columns(out, image, *how)
    elif height == rows:
        _resize_rows(out, image, *how)
    elif rows - height > 2 * (columns - width) and rows > height:
        narrow = Tensor.empty((height, columns, channels), kind, device=image.device)
        _resize_columns(narrow, image, *how)
        _resize_rows(out, narrow, *how)
    else:
        wide = Tensor.empty((rows, width, channels), kind, device=image.device)
        _resize_rows(wide, image, *how)
        _resize_columns(out, wide, *how)
    return out


def _check_sizes(shape: tuple[int, ...], height: int, width: int, filter: str) -> None:
    if filter not in get_args(Filter):
        raise TensorError(f"image_resize: filter is {filter!r}, expected one of {', '.join(get_args(Filter))}")
    for name, size in (("height", height), ("width", width), ("image", shape[0]), ("image", shape[1])):
        if type(size) is not int or not 1 <= size <= LONGEST:
            found = f"shape {shape}" if name == "image" else repr(size)
            raise TensorError(f"image_resize: {name} has {found}, expected from 1 to {LONGEST} rows and columns")


def _weights(size: int, out_size: int, cubic: bool, antialias: bool, form: int, device: Device) -> _Weights:
    """Return what each of out_size pixels is made of, of size ones in a row."""
    support = SUPPORT["bicubic" if cubic else "bilinear"] * (max(1.0, size / out_size) if antialias else 1.0)
    taps = math.ceil(support) * 2 + 1
    if form == SPREAD:
        taps = -(-taps // PIXELS) * PIXELS
        values = Tensor.zeros((out_size, taps // PIXELS, LANES), int32, device=device)
    else:
        values = Tensor.empty((out_size, taps), float32 if form == FLOATS else int32, device=device)
    bounds = Tensor.empty((out_size, 2), int32, device=device)
    parts = split(8 * taps * out_size, device)  # two values of the filter, with divisions
    at = values.address, bounds.address
    kernels.on(device).resize_weights(*at, size, out_size, taps, int(cubic), int(antialias), form, parts)
    return _Weights(values, bounds, taps)


def _resize_rows(out: Tensor, image: Tensor, cubic: bool, antialias: bool) -> None:
    rows, columns, channels = image.shape
    width, floats = out.shape[1], image.dtype is float32
    form = FLOATS if floats else SPREAD if channels == 3 else WHOLE
    made = _weights(columns, width, cubic, antialias, form, image.device)
    at = out.address, image.address, made.values.address, made.bounds.address
    parts = split(made.taps * out.size, image.device)
    if form != SPREAD:
        here = kernels.on(image.device)
        resize = here.resize_float_rows if floats else here.resize_rows
        resize(*at, rows, columns, width, channels, made.taps, parts)
        return
    groups = made.taps // PIXELS
    row = 3 * columns + 3 * PIXELS * groups + LANES  # and what its vectors may take along
    scratch = Tensor.empty((RESIZE_PARTS * parts, row), uint8, device=image.device)
    kernels.on(image.device).resize_rgb_rows(*at, scratch.address, rows, columns, width, groups, parts)


def _resize_columns(out: Tensor, image: Tensor, cubic: bool, antialias: bool) -> None:
    height, width, channels = out.shape
    floats = image.dtype is float32
    made = _weights(image.shape[0], height, cubic, antialias, FLOATS if floats else WHOLE, image.device)
    at = out.address, image.address, made.values.address, made.bounds.address
    here = kernels.on(image.device)
    resize = here.resize_float_columns if floats else here.resize_columns
    resize(*at, height, width * channels, made.taps, split(made.taps * out.size, image.device))
