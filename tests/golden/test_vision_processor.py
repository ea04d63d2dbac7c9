"""Pictures and videos are prepared as the published processor does: sizes, levels, files, frames, positions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vision_case import FOLDER
from vision_pictures import picture, places, suffix, table_value

import pio
from pio import ops

pytest.importorskip("PIL")
pytest.importorskip("pio.media")

from pio.media.picture import open_picture
from pio.media.prepared import PreparedMedium, prepare_picture
from pio.media.preprocessor import PreprocessorConfig, VideoPreprocessorConfig
from pio.media.smart_resize import smart_resize, smart_resize_video
from pio.media.video import sample_frames, timestamps

ASKED: dict[str, Any] = json.loads((FOLDER / "processor.json").read_text("utf-8"))
HALF = (0.5, 0.5, 0.5)


def config(budget: str) -> PreprocessorConfig:
    least, most = ASKED["budgets"][budget]
    return PreprocessorConfig(16, 2, 2, least, most, HALF, HALF)


def levels(medium: PreparedMedium) -> list[int]:
    """All values of the patch matrix, 0 to 255."""
    count = medium.grid[1] * medium.grid[2]
    out = pio.Tensor.empty((count, 3 * 2 * 16 * 16), "float32")
    ops.image_patches(medium.frames, medium.grid, 0, patch=16, temporal=2, merge=2, mean=HALF, std=HALF, out=out)
    return [round((value * 0.5 + 0.5) * 255) for row in out.tolist() for value in row]


def check_levels(medium: PreparedMedium, entry: dict[str, Any], mean: str = "mean", at: str = "at") -> None:
    assert list(medium.grid[1:]) == entry["grid"]
    found = levels(medium)
    assert [found[i] for i in places(len(found))] == entry[at]
    assert sum(found) / len(found) == pytest.approx(entry[mean], abs=6e-4)


@pytest.mark.parametrize("budget", ASKED["grids"])
def test_sizes(budget: str) -> None:
    least, most = ASKED["budgets"][budget]
    for (width, height), answer in ASKED["grids"][budget]:
        if isinstance(answer, str):
            with pytest.raises(pio.MediaError):
                smart_resize(height, width, factor=32, min_pixels=least, max_pixels=most)
        else:
            found = smart_resize(height, width, factor=32, min_pixels=least, max_pixels=most)
            assert [side // 16 for side in found] == answer, (width, height)


@pytest.mark.parametrize("mode", sorted({entry["mode"] for entry in ASKED["pictures"]}))
def test_pictures_of_a_mode(mode: str, tmp_path: Path) -> None:
    for entry in ASKED["pictures"]:
        if entry["mode"] == mode:
            file = tmp_path / f"picture{suffix(mode)}"
            picture(mode, *entry["size"], entry["seed"]).save(file)
            check_levels(prepare_picture(open_picture(file), config(entry["budget"])), entry)


@pytest.mark.parametrize("entry", ASKED["files"], ids=lambda entry: entry["file"])
def test_files(entry: dict[str, Any]) -> None:
    file = FOLDER / "files" / entry["file"]
    check_levels(prepare_picture(open_picture(file), config(entry["budget"])), entry)
    if "white_at" in entry:
        white = open_picture(file, background=(255, 255, 255))
        check_levels(prepare_picture(white, config(entry["budget"])), entry, "white_mean", "white_at")


@pytest.mark.parametrize("entry", ASKED["videos"], ids=lambda e: f"{e['frames']} at {e['fps']}, {e['size']}")
def test_frames_and_times_of_videos(entry: dict[str, Any]) -> None:
    settings = VideoPreprocessorConfig(min_pixels=4096, max_pixels=25_165_824)
    fps = entry["fps"] or 24.0
    width, height = entry["size"]
    if entry["count"] < 2:
        with pytest.raises(pio.MediaError):
            sample_frames(entry["frames"], fps, settings)
        return
    chosen = sample_frames(entry["frames"], fps, settings)
    assert (len(chosen), sum(chosen)) == (entry["count"], entry["sum"])
    assert ends(chosen) == entry["indices"]
    times = timestamps(chosen, fps, 2)
    assert ends([f"<{time:.1f} seconds>" for time in times]) == entry["timestamps"]
    sizes: dict[str, Any] = {"min_pixels": settings.min_pixels, "max_pixels": settings.max_pixels}
    if "error" in entry:
        with pytest.raises(pio.MediaError):
            smart_resize_video(len(chosen), height, width, temporal=2, factor=32, **sizes)
    else:
        found = smart_resize_video(len(chosen), height, width, temporal=2, factor=32, **sizes)
        assert [len(times), *(side // 16 for side in found)] == entry["grid"]


def ends(values: list[Any]) -> list[Any]:
    """What is stored of a list."""
    return values if len(values) <= 12 else [*values[:6], *values[-6:]]


def test_positions_of_large_grids() -> None:
    asked = json.loads((FOLDER / "positions.json").read_text("utf-8"))
    side = asked["side"]
    rows = [[table_value(i // side, i % side, channel) for channel in range(8)] for i in range(side**2)]
    table = pio.Tensor.from_list(rows, "float32")
    for entry in asked["grids"]:
        height, width = entry["grid"]
        x = pio.Tensor.zeros((height * width, 8), "float32")
        ops.add_grid_embedding(x, table, (height, width), merge=asked["merge"])
        for patch, values in zip(entry["patches"], entry["values"], strict=True):
            assert x[patch].tolist() == pytest.approx(values, abs=2e-4), (entry["grid"], patch)
