import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.errors import MediaError
from pio.media.smart_resize import smart_resize, smart_resize_video

LIMITS = {"factor": 32, "min_pixels": 65_536, "max_pixels": 16_777_216}  # of Qwen3-VL
VIDEO = {"temporal": 2, "factor": 32, "min_pixels": 4096, "max_pixels": 25_165_824}

# What transformers 5.23 answers.
SIZES = {
    (1, 1): (256, 256),
    (1, 200): (32, 3648),
    (33, 31): (288, 256),
    (48, 16): (448, 160),
    (32, 48): (224, 320),
    (80, 80): (256, 256),
    (1024, 484): (1024, 480),
    (1024, 1024): (1024, 1024),
    (4096, 512): (4096, 512),
    (512, 4096): (512, 4096),
    (5000, 25): (4992, 32),
    (7952, 5304): (4992, 3328),
}
VIDEO_SIZES = {
    (2, 1, 1): (64, 64),
    (3, 480, 640): (480, 640),
    (5, 480, 640): (480, 640),
    (2, 16, 100): (32, 192),
    (10, 48, 80): (64, 64),
    (768, 1080, 1920): (128, 224),
}


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_the_published_processor(size):
    assert smart_resize(*size, **LIMITS) == SIZES[size]


@pytest.mark.parametrize("size", VIDEO_SIZES)
def test_sizes_of_videos_are_those_of_the_published_processor(size):
    assert smart_resize_video(*size, **VIDEO) == VIDEO_SIZES[size]


def test_halves_are_rounded_to_even():
    limits = {"factor": 32, "min_pixels": 1, "max_pixels": 1 << 30}
    assert smart_resize(48, 80, **limits) == (64, 64)
    assert smart_resize(112, 144, **limits) == (128, 128)
    assert smart_resize_video(5, 112, 144, **limits | {"temporal": 2}) == (128, 128)
    # five frames count as four: 2.5 time steps round to two
    assert smart_resize_video(5, 64, 64, temporal=2, factor=32, min_pixels=1, max_pixels=4 * 64 * 64) == (64, 64)
    assert smart_resize_video(6, 64, 64, temporal=2, factor=32, min_pixels=1, max_pixels=4 * 64 * 64) == (32, 32)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_sides_are_multiples_within_the_limits(height, width):
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(MediaError, match=f"{width} x {height} pixels: one side is more than 200 times"):
            smart_resize(height, width, **LIMITS)
        return
    tall, wide = smart_resize(height, width, **LIMITS)
    assert tall % 32 == wide % 32 == 0 and tall * wide >= LIMITS["min_pixels"]
    assert tall * wide <= LIMITS["max_pixels"] or min(tall, wide) == 32


def test_a_side_of_two_hundred_times_the_other_is_taken():
    assert smart_resize(20, 4000, **LIMITS) == (32, 4000)
    for size in ((1, 201), (3000, 1)):
        with pytest.raises(MediaError, match="more than 200 times as long"):
            smart_resize(*size, **LIMITS)


def test_a_single_frame_is_no_video():
    with pytest.raises(MediaError, match="a video has 1 frame, expected at least 2; give a single frame as a picture"):
        smart_resize_video(1, 480, 640, **VIDEO)
    with pytest.raises(MediaError, match="more than 200 times"):
        smart_resize_video(4, 30, 6401, **VIDEO)
