from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import Image, gradient

from pio import ops
from pio.errors import ConfigError, MediaError
from pio.media.picture import Picture, open_picture
from pio.media.prepared import prepare_picture, prepare_video
from pio.media.preprocessor import PreprocessorConfig, VideoPreprocessorConfig
from pio.tensor import Tensor
from pio.testing.compare import bits

HALF = (0.5, 0.5, 0.5)
CONFIG = PreprocessorConfig(16, 2, 2, 65536, 16777216, HALF, HALF)
SMALL = replace(CONFIG, patch_size=4, min_pixels=64, max_pixels=4096)
VIDEO = VideoPreprocessorConfig(4, 2, 2, 64, 6 * 4096, HALF, HALF)


@given(st.integers(1, 90), st.integers(1, 90))
def test_a_picture_is_resized_as_the_processor_does(height, width):
    source = gradient(width, height)
    if max(height, width) > 200 * min(height, width):
        return
    found = prepare_picture(open_picture(source), SMALL)
    steps, down, across = found.grid
    size = down * 4, across * 4
    assert steps == 1 and found.frames.shape == (1, *size, 3) and found.kind == "image" and found.timestamps == ()
    tall_first = height - size[0] > 2 * (width - size[1]) and height > size[0]
    between = (width, size[0]) if tall_first else (size[1], height)
    resized = source.resize(between, Image.Resampling.BICUBIC).resize(size[::-1], Image.Resampling.BICUBIC)
    assert bits(found.frames) == resized.tobytes()


def test_its_patches_fit():
    found = prepare_picture(open_picture(gradient(100, 70)), SMALL)
    out = Tensor.empty((found.grid[1] * found.grid[2], 96))
    ops.image_patches(found.frames, found.grid, patch=4, temporal=2, merge=2, mean=HALF, std=HALF, out=out)
    pixels = [v for row in found.frames.tolist()[0] for p in row for v in p]
    assert abs(sum(map(sum, out.tolist())) - 2 * sum(v / 127.5 - 1 for v in pixels)) < 0.1


def test_shapes_that_the_model_does_not_take_are_named():
    with pytest.raises(MediaError, match=r"^messages\[0\]: 3000 x 1 pixels: one side is more than 200 times"):
        prepare_picture(open_picture(gradient(3000, 1)), CONFIG, name="messages[0]")


def test_equal_pictures_have_one_key():
    config, picture = SMALL, open_picture(gradient())
    key = prepare_picture(picture, config).key
    assert len(key) == 32 and prepare_picture(open_picture(gradient()), config).key == key
    others = [
        prepare_picture(open_picture(gradient(36)), config),
        prepare_picture(Picture(picture.pixels, "P"), config),
        prepare_picture(picture, replace(config, image_mean=(0.5, 0.5, 0.4))),
        prepare_picture(picture, replace(config, max_pixels=512)),
        prepare_video([picture, picture], VIDEO, fps=1),
    ]
    assert len({key, *(other.key for other in others)}) == 6


def test_one_colour_of_two_sizes_is_two_pictures():
    whites = [prepare_picture(open_picture(Image.new("RGB", size, "white")), SMALL) for size in ((64, 64), (65, 65))]
    assert bits(whites[0].frames) == bits(whites[1].frames) and whites[0].key != whites[1].key


def frames(count, width=40, height=24):
    return [Image.new("RGB", (width, height), (10 * i, 255 - 10 * i, i)) for i in range(count)]


def test_a_video_is_sampled_and_stamped_once():
    found = prepare_video(frames(20), VIDEO, fps=4)
    assert found.kind == "video" and found.grid == (5, 6, 10) and found.frames.shape == (10, 24, 40, 3)
    red = [frame[0][0][0] for frame in found.frames.tolist()]
    chosen = [0, 2, 4, 6, 8, 11, 13, 15, 17, 19]
    assert red == [10 * i for i in chosen]
    assert found.timestamps == tuple((a + b) / 8 for a, b in zip(chosen[::2], chosen[1::2], strict=True))


def test_an_odd_number_of_frames_repeats_the_last():
    found = prepare_video(frames(5), VIDEO, fps=2)
    assert found.grid[0] == 3 and found.frames.shape[0] == 5 and found.timestamps == (0.25, 1.25, 2.0)


def test_all_frames_share_the_budget():
    config = replace(VIDEO, max_pixels=8 * 256)
    found = prepare_video(
        frames(8, 100, 100),
        config,
        fps=1,
    )
    assert found.frames.shape == (8, 16, 16, 3)
    capped = replace(VIDEO, cap_pixels_per_frame=True, max_video_tokens=4)
    assert prepare_video(frames(4, 100, 100), capped, fps=2).frames.shape == (4, 16, 16, 3)


def test_videos_that_are_none():
    for source, words in (
        ([], "clip has no frames; give two or more"),
        (frames(1), "clip has 1 frame, expected at least 2; give a single frame as a picture"),
        (
            [*frames(2), *frames(2, 41)],
            "clip: frame 2 has 41 x 24 pixels, the first one 40 x 24; give frames of one size",
        ),
        ([*frames(3), b"no picture"], r"clip: frame 3 \(bytes\) is text"),
        (frames(4, 3000, 1), "clip: .*more than 200 times"),
    ):
        with pytest.raises(MediaError, match=f"^{words}"):
            prepare_video(source, VIDEO, fps=1, name="clip")


def test_only_sampled_pictures_are_opened():
    pictures = frames(100)
    pictures[1] = b"no picture"
    assert prepare_video(pictures, VIDEO, fps=50).grid[0] == 2


def test_a_video_of_ones_own_and_one_that_ends_early():
    class Frames:
        count, fps = 8, 2.0

        def pictures(self, chosen):
            for i in chosen:
                yield Picture(Tensor.full((24, 40, 3), i, "uint8"))

    found = prepare_video(Frames(), VIDEO)
    assert [frame[0][0][0] for frame in found.frames.tolist()] == list(range(8))
    Frames.pictures = lambda self, chosen: iter([Picture(Tensor.zeros((24, 40, 3), "uint8"))])
    with pytest.raises(MediaError, match="video ends after 1 of 8 frames; it is damaged"):
        prepare_video(Frames(), VIDEO)


def test_a_picture_has_limits_of_its_own():
    picture = open_picture(gradient(100, 70))
    for limits, height, width in (
        ({}, 72, 96),
        ({"max_pixels": 1024}, 24, 32),
        ({"max_pixels": 1 << 30}, 72, 96),  # no more than the config says
        ({"max_pixels": 32}, 8, 8),  # less than the config's least
        ({"min_pixels": 6912}, 72, 96),
        ({"min_pixels": 6913}, 72, 104),
    ):
        config = replace(SMALL, max_pixels=16384)
        assert prepare_picture(picture, config, **limits).frames.shape == (1, height, width, 3), limits
    wide = prepare_picture(picture, SMALL, max_pixels=1 << 30)
    assert wide.frames.size == prepare_picture(picture, SMALL).frames.size


def test_a_video_has_limits_and_frames_of_its_own():
    assert prepare_video(frames(8, 100, 100), VIDEO, fps=1, max_pixels=8 * 256).frames.shape == (8, 16, 16, 3)
    found = prepare_video(frames(20), VIDEO, fps=4, num_frames=4)
    assert found.frames.shape[0] == 4 and found.timestamps == ((0 + 6) / 8, (13 + 19) / 8)
    every = replace(VIDEO, do_sample_frames=False)
    assert prepare_video(frames(20), every, fps=4, num_frames=6).frames.shape[0] == 6


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_pixels": 0}, "max_pixels is 0, expected a whole number from 1"),
        ({"max_pixels": "9"}, "max_pixels is '9'"),
        ({"min_pixels": 2.5}, "min_pixels is 2.5"),
        ({"min_pixels": True}, "min_pixels is True"),
        ({"min_pixels": 9, "max_pixels": 8}, "min_pixels is 9, expected at most max_pixels, 8"),
        ({"num_frames": 1}, "num_frames is 1, expected a whole number from 2 to 768"),
        ({"num_frames": 10**9}, "num_frames is 1000000000"),
        ({"num_frames": "4"}, "num_frames is '4'"),
    ],
)
def test_limits_of_their_own_are_checked(given, words):
    with pytest.raises(ConfigError, match=f"^clip: {words}"):
        prepare_video(frames(4), VIDEO, fps=1, name="clip", **given)
    if "num_frames" not in given:
        with pytest.raises(ConfigError, match=f"^photo: {words}"):
            prepare_picture(open_picture(gradient()), SMALL, name="photo", **given)
