"""The pixels that some patches of a medium are cut from: what a GPU gets of it at a time."""

from __future__ import annotations

from typing import NamedTuple

from pio.media.prepared import PreparedMedium
from pio.models.qwen3_vl_2b_instruct.vision_config import VisionConfig
from pio.tensor import Tensor

Grid = tuple[int, int, int]


class Excerpt(NamedTuple):
    """Whole rows of squares of a moment, or several moments.

    Attributes:
        frames: Which frames of the medium.
        rows: Which rows of pixels of them.
        grid: Time steps, and patches down and across, of these alone.
        first: The first of the patches, counted in these.
        nbytes: Bytes of the pixels, where no frame is lacking.
    """

    frames: slice
    rows: slice
    grid: Grid
    first: int
    nbytes: int

    def pixels(self, medium: PreparedMedium) -> Tensor:
        """Return the pixels, where the medium has them: uint8 (frames, rows, width, 3)."""
        return medium.frames[self.frames, self.rows]


def excerpt(config: VisionConfig, grid: Grid, first: int, count: int) -> Excerpt:
    """Return what some patches are cut from.

    Of a moment that is large those rows of squares which they are in; where they are of several moments, all of these,
    so that no pixel is part of more than three excerpts.

    Args:
        config: Sizes of patches.
        grid: Of the medium: time steps, and patches down and across.
        first: The first patch, counted in the medium.
        count: How many, at least one.
    """
    _, height, width = grid
    temporal, merge, side = config.temporal_patch_size, config.spatial_merge_size, config.patch_size
    each = height * width
    begin, end = first // each, -(-(first + count) // each)
    top, bottom, inside = 0, height, first - begin * each
    if end - begin == 1:
        strip = merge * width  # patches of a row of squares
        top, bottom = inside // strip * merge, -(-(inside + count) // strip) * merge
        inside -= top * width
    nbytes = 3 * (end - begin) * temporal * (bottom - top) * width * side * side
    cut = slice(begin * temporal, end * temporal), slice(top * side, bottom * side)
    return Excerpt(*cut, (end - begin, bottom - top, width), inside, nbytes)
