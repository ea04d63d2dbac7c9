"""What patches are cut from in an excerpt is what they are cut from in the whole medium."""

from __future__ import annotations

from typing import Any

import pytest

from pio import ops
from pio.media.prepared import PreparedMedium
from pio.models.qwen3_vl_2b_instruct.excerpt import excerpt
from pio.models.qwen3_vl_2b_instruct.vision_config import VisionConfig
from pio.tensor import Tensor

CONFIG = VisionConfig.read(
    {"depth": 1, "hidden_size": 8, "num_heads": 1, "patch_size": 3, "deepstack_visual_indexes": []}
)
CUT: dict[str, Any] = {"patch": 3, "temporal": 2, "merge": 2, "mean": (0.5, 0.4, 0.3), "std": (0.5, 0.6, 0.7)}


@pytest.mark.parametrize("grid", [(1, 4, 6), (1, 8, 2), (3, 4, 2), (2, 6, 4)])
@pytest.mark.parametrize("most", [1, 5, 8, 13, 100])
def test_patches_are_cut_from_what_their_excerpt_has(grid: tuple[int, int, int], most: int) -> None:
    """Of every piece, what its patches are cut from is what they are cut from in the whole."""
    t, height, width = grid
    frames = 2 * t - (t > 1)  # the last moment lacks one
    shape = frames, height * 3, width * 3, 3
    pixels = Tensor.from_list([(7 * i) % 251 for i in range(frames * height * width * 27)], "uint8").reshape(shape)
    medium = PreparedMedium("video", pixels, grid, (), b"", 2, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
    whole = patches(medium.frames, grid, 0, t * height * width)
    for first in range(0, t * height * width, most):
        count = min(most, t * height * width - first)
        cut = excerpt(CONFIG, grid, first, count)
        seen = cut.pixels(medium)
        assert seen.size <= cut.nbytes
        assert patches(seen.contiguous(), cut.grid, cut.first, count) == whole[first : first + count]


def patches(frames: Tensor, grid: tuple[int, int, int], first: int, count: int) -> list[list[float]]:
    out = Tensor.empty((count, 3 * 2 * 3 * 3))
    return ops.image_patches(frames, grid, first, **CUT, out=out).tolist()
