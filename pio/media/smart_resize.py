"""The size that a picture is given before it is cut into patches, as Qwen's processors in transformers choose it."""

from __future__ import annotations

import math
from typing import Final

from pio.errors import MediaError

STRETCH: Final = 200  # how many times one side may be as long as the other


def smart_resize(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the height and width, multiples of a factor, that a picture is resized to.

    Each side is rounded to the nearest multiple, a half to the even one. A picture that is then outside the two limits
    is made smaller, or larger, with both sides rounded towards the limit; one side of a long picture may stay at the
    factor, so that the upper limit is a little exceeded.

    Args:
        height: Rows, at least 1.
        width: Columns, at least 1.
        factor: Pixels along a square of merged patches.
        min_pixels: As many as there are to be at least.
        max_pixels: As many as there may be.

    Raises:
        MediaError: One side is more than 200 times as long as the other.
    """
    _check_stretch(height, width)
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    if tall * wide > max_pixels:
        return _shrunk(height, width, math.sqrt(height * width / max_pixels), factor)
    if tall * wide < min_pixels:
        return _grown(height, width, math.sqrt(min_pixels / (height * width)), factor)
    return tall, wide


def smart_resize_video(
    frames: int, height: int, width: int, *, temporal: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Return the height and width that the frames of a video are resized to: the limits are of all frames together.

    As ``smart_resize``, but frames that are smaller than the factor are made larger first, and the limits are compared
    with a number of frames that is rounded to whole time steps, a half to the even one.

    Args:
        frames: How many, at least ``temporal``.
        height: Rows.
        width: Columns.
        temporal: Frames in a time step.
        factor: Pixels along a square of merged patches.
        min_pixels: As many as all frames are to have at least.
        max_pixels: As many as all frames may have.

    Raises:
        MediaError: There are fewer frames than a time step has, or one side is more than 200 times the other.
    """
    if frames < temporal:
        raise MediaError(f"a video has {frames} frame, expected at least {temporal}; give a single frame as a picture")
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    _check_stretch(height, width)
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    counted = round(frames / temporal) * temporal
    if counted * tall * wide > max_pixels:
        return _shrunk(height, width, math.sqrt(frames * height * width / max_pixels), factor)
    if counted * tall * wide < min_pixels:
        return _grown(height, width, math.sqrt(min_pixels / (frames * height * width)), factor)
    return tall, wide


def _check_stretch(height: int, width: int) -> None:
    if max(height, width) / min(height, width) > STRETCH:
        raise MediaError(
            f"{width} x {height} pixels: one side is more than {STRETCH} times as long as the other, which the model "
            "does not take; cut the picture"
        )


def _shrunk(height: int, width: int, by: float, factor: int) -> tuple[int, int]:
    tall, wide = (max(factor, math.floor(side / by / factor) * factor) for side in (height, width))
    return tall, wide


def _grown(height: int, width: int, by: float, factor: int) -> tuple[int, int]:
    tall, wide = (math.ceil(side * by / factor) * factor for side in (height, width))
    return tall, wide
