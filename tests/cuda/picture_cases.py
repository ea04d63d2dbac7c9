"""Convolutions, pictures and places in a grid, as cases."""

from __future__ import annotations

from itertools import product

from operation_case import Case, numbers

from pio import ops
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS

PATCHES = {"patch": 3, "temporal": 2, "merge": 2, "mean": (0.5, 0.25, 0.4), "std": (0.5, 0.3, 0.2)}


def picture(*shape):
    values = 1
    for n in shape:
        values *= n
    return Tensor.from_list([(i * 37 + i // 11) % 256 for i in range(values)], "uint8").reshape(*shape)


def image_patches(frames):
    out = Tensor.full((13, 3 * 2 * 9), 7.0, device=frames.device)
    return ops.image_patches(frames, (2, 6, 4), 17, out=out, **PATCHES)


def resized(filter, antialias, *size):
    return lambda x: ops.image_resize(x, *size, filter=filter, antialias=antialias)


CASES = {
    "conv1d": Case(
        lambda x, w, b: ops.conv1d(x, w, b, stride=2, padding=1, dilation=2),
        lambda: (numbers(3, 41), numbers(5, 3, 4, seed=2), numbers(5, seed=3)),
        1e-5,
    ),
    "conv1d of groups": Case(
        lambda x, w: ops.conv1d(x, w, groups=3), lambda: (numbers(6, 17), numbers(9, 2, 3, seed=2)), 1e-5
    ),
    "conv2d": Case(
        lambda x, w, b: ops.conv2d(x, w, b, padding=1, stride=(2, 1)),
        lambda: (numbers(3, 7, 9), numbers(4, 3, 3, 2, seed=2), numbers(4, seed=3)),
        1e-5,
    ),
    "conv2d of groups": Case(
        lambda x, w: ops.conv2d(x, w, groups=2, dilation=2), lambda: (numbers(4, 7, 9), numbers(6, 2, 3, 2)), 1e-5
    ),
    "image_rgb": Case(ops.image_rgb, lambda: (picture(9, 11, 1),)),
    "image_rgb of floats": Case(ops.image_rgb, lambda: (Tensor.full((2, 3, 3), 0.5),)),
    "image_patches": Case(image_patches, lambda: (picture(3, 18, 12, 3),)),
}
for filter, antialias in product(("bicubic", "bilinear"), (True, False)):
    how = f"{filter}{' antialiased' * antialias}"
    CASES |= {
        f"image_resize {how}": Case(resized(filter, antialias, 5, 17), lambda: (picture(9, 11, 3),)),
        f"image_resize of four channels {how}": Case(resized(filter, antialias, 13, 4), lambda: (picture(9, 11, 4),)),
        f"image_resize of floats {how}": Case(resized(filter, antialias, 13, 4), lambda: (numbers(9, 11, 2),)),
    }
for dtype in FLOATS:
    CASES[f"add_grid_embedding {dtype}"] = Case(
        lambda x, t: ops.add_grid_embedding(x, t, (2, 6), first=3, merge=2),
        lambda dtype=dtype: (numbers(17, 7), numbers(9, 7, seed=2, dtype=dtype)),
        1e-5,
    )
