import json
import math

import pytest

from pio.errors import CheckpointError, UnsupportedModelError
from pio.media.preprocessor import (
    PreprocessorConfig,
    VideoPreprocessorConfig,
    picture_config,
    read_picture_config,
    read_video_config,
    video_config,
)

QWEN3 = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
HALF = (0.5, 0.5, 0.5)


def test_a_published_file():
    found = picture_config(QWEN3, "p.json")
    assert found == PreprocessorConfig(16, 2, 2, 65536, 16777216, HALF, HALF) and found.factor == 32


def test_what_is_missing_or_null_is_the_classes_default():
    nulls = dict.fromkeys([*QWEN3, "min_pixels", "max_pixels", "resample", "do_resize", "rescale_factor"])
    assert picture_config({}, "p.json") == picture_config(nulls, "p.json") == PreprocessorConfig()
    nulls |= dict.fromkeys(["fps", "num_frames", "min_frames", "max_frames", "do_sample_frames"])
    assert video_config({}, "v.json") == video_config(nulls, "v.json") == VideoPreprocessorConfig()
    assert VideoPreprocessorConfig().patch_size == 16 and PreprocessorConfig().max_pixels == 1_003_520


def test_limits_at_the_top_go_before_those_in_size():
    found = picture_config(QWEN3 | {"min_pixels": 5000, "max_pixels": None}, "p.json")
    assert (found.min_pixels, found.max_pixels) == (5000, 16777216)
    found = picture_config({"max_pixels": 90_000}, "p.json")
    assert (found.min_pixels, found.max_pixels) == (3136, 90_000)
    found = picture_config({"size": {"shortest_edge": None, "longest_edge": 90_000}}, "p.json")
    assert (found.min_pixels, found.max_pixels) == (3136, 90_000)


def test_what_pillow_calls_two_is_bilinear():
    assert picture_config({"resample": 2}, "p.json").filter == "bilinear"
    assert picture_config({"image_mean": 0.5}, "p.json").image_mean == HALF


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"patch_size": 0}, "patch_size is 0"),
        ({"patch_size": "16"}, "patch_size is '16'"),
        ({"patch_size": 16.0}, "patch_size is 16.0"),
        ({"patch_size": True}, "patch_size is True"),
        ({"patch_size": 10**9}, "patch_size is 1000000000"),
        ({"temporal_patch_size": -2}, "temporal_patch_size is -2"),
        ({"merge_size": []}, "merge_size is a list"),
        ({"size": 448}, "size is 448"),
        ({"size": {"height": 448, "width": 448}}, "size.shortest_edge is None"),
        ({"size": {"shortest_edge": 9}}, "size.longest_edge is None"),
        ({"size": {"shortest_edge": "9", "longest_edge": 99}}, "size.shortest_edge is '9'"),
        ({"min_pixels": 10**8}, r"min_pixels .* is 100000000, expected at most max_pixels"),
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"max_pixels": 10**30}, "max_pixels is 1"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is a list, expected three numbers"),
        ({"image_mean": [0.5, 0.5, math.nan]}, "image_mean is nan"),
        ({"image_mean": "half"}, "image_mean is 'half'"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is 0.0, expected a number from 1e-06 to"),
        ({"image_std": [0.5, 0.5, 1e-60]}, "image_std is 1e-60"),  # which is zero in float32
        ({"image_mean": -1e300}, "image_mean is -1e"),
        ({"image_mean": 10**400}, "image_mean is "),
        ({"image_std": [0.5, 1e300, 0.5]}, "image_std is 1e"),
        ({"do_resize": "yes"}, "do_resize is 'yes'"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
    ],
)
def test_damaged_fields_are_named(change, field):
    with pytest.raises(CheckpointError, match=rf"^p\.json: {field}.*; correct the field or download the file again"):
        picture_config(QWEN3 | change, "p.json")
    with pytest.raises(CheckpointError, match=rf"^p\.json: {field}"):
        video_config(QWEN3 | change, "p.json")


@pytest.mark.parametrize(
    "change",
    [{"do_resize": False}, {"do_rescale": False}, {"do_normalize": False}, {"rescale_factor": 1.0}, {"resample": 1}]
    + [{"resample": [3]}, {"resample": {}}, {"resample": "bicubic"}, {"resample": True}],
)
def test_other_steps_are_refused(change):
    with pytest.raises(UnsupportedModelError, match=f"^p.json: {next(iter(change))} is "):
        picture_config(QWEN3 | change, "p.json")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": "2"}, "fps is '2'"),
        ({"num_frames": 8, "fps": 2}, "num_frames is 8, expected null beside fps 2"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"min_frames": 10, "max_frames": 9}, "min_frames is 10, expected at most max_frames, 9"),
        ({"max_frames": 1.5}, "max_frames is 1.5"),
        ({"do_sample_frames": 1}, "do_sample_frames is 1"),
        ({"max_video_tokens": 0}, "max_video_tokens is 0"),
    ],
)
def test_damaged_fields_of_videos_are_named(change, field):
    with pytest.raises(CheckpointError, match=rf"^v\.json: {field}"):
        video_config(change, "v.json")


def test_how_many_frames():
    assert video_config({"num_frames": 8}, "v.json").fps is None
    found = video_config({"fps": 4, "min_frames": 2, "cap_pixels_per_frame": True}, "v.json")
    assert (found.fps, found.min_frames, found.cap_pixels_per_frame) == (4.0, 2, True)


def test_folders(tmp_path):
    for read, name in ((read_picture_config, "preprocessor_config.json"), (read_video_config, "video_preprocessor_")):
        with pytest.raises(CheckpointError, match=f"holds no {name}"):
            read(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(QWEN3))
    assert read_picture_config(tmp_path).patch_size == 16
    assert read_video_config(tmp_path).max_pixels == 16777216
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"fps": 3}))
    assert read_video_config(tmp_path) == video_config({"fps": 3}, "")
    both = {"image_processor": {"patch_size": 8}, "video_processor": {"patch_size": 4}}
    (tmp_path / "processor_config.json").write_text(json.dumps(both))
    assert read_picture_config(tmp_path).patch_size == 8 and read_video_config(tmp_path).patch_size == 4
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": [], "video_processor": None}))
    with pytest.raises(CheckpointError, match=r"processor_config\.json: image_processor is a list, expected an object"):
        read_picture_config(tmp_path)
    assert read_video_config(tmp_path).fps == 3
    (tmp_path / "processor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"processor_config\.json is not valid JSON"):
        read_picture_config(tmp_path)
