from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.errors import ConfigError, MediaError
from pio.media.preprocessor import VideoPreprocessorConfig
from pio.media.video import open_video, sample_frames, timestamps

CONFIG = VideoPreprocessorConfig()
RATES = st.sampled_from((1, 2, 23.976, 24, 25, 30000 / 1001, 30, 60, 0.5)) | st.floats(0.1, 240)


@given(st.integers(2, 5000), RATES, st.sampled_from((2.0, 0.5, 3.3)), st.sampled_from((16, 33, 768)))
def test_frames_are_those_of_the_published_processor(count, fps, wanted, most):
    found = sample_frames(count, fps, replace(CONFIG, fps=wanted, max_frames=most))
    number = min(max(int(count / fps * wanted), 4), most, count)
    assert found == np.linspace(0, count - 1, number).round().astype(int).tolist()


@given(st.integers(2, 500), st.integers(2, 60))
def test_a_number_of_frames(count, number):
    found = sample_frames(count, 30.0, replace(CONFIG, fps=None, num_frames=number))
    assert found == np.linspace(0, count - 1, number).round().astype(int).tolist()


def test_halves_are_rounded_to_even():
    assert sample_frames(6, 3.0, replace(CONFIG, fps=1.5, min_frames=2)) == [0, 2, 5]
    assert sample_frames(8, 4.0, replace(CONFIG, fps=None, num_frames=3)) == [0, 4, 7]


def test_without_sampling_all_frames_are_taken():
    assert sample_frames(1000, 30.0, replace(CONFIG, do_sample_frames=False)) == list(range(1000))
    assert sample_frames(1000, 1.0, CONFIG)[-1] == 999 and len(sample_frames(1000, 1.0, CONFIG)) == 768
    assert sample_frames(3, 30.0, CONFIG) == [0, 1, 2]


def test_more_frames_than_anybody_looks_at_are_refused():
    every = replace(CONFIG, do_sample_frames=False)
    for count in ((1 << 16) + 1, 1 << 62):
        with pytest.raises(MediaError, match=rf"^clip: {count} frames were to be seen, at most 65536 are; cut it"):
            sample_frames(count, 24.0, every, name="clip")
    assert len(sample_frames(1 << 62, 24.0, CONFIG)) == 768
    with pytest.raises(MediaError, match="frames were to be seen"):
        sample_frames(10, 24.0, replace(CONFIG, fps=None, num_frames=1 << 20))


@pytest.mark.parametrize("fps", [0.0, 5e-324, 9e-4, 1e5, float("nan"), float("inf")])
def test_videos_of_a_rate_that_none_has(fps):
    with pytest.raises(MediaError, match=r"clip has .* frames in a second, expected from 0\.001 to 10000"):
        sample_frames(10, fps, CONFIG, name="clip")


@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, do_sample_frames=False), replace(CONFIG, fps=None, num_frames=8)]
)
def test_one_frame_is_no_video(config):
    with pytest.raises(MediaError, match="clip has 1 frame, expected at least 2"):
        sample_frames(1, 24.0, config, name="clip")
    with pytest.raises(MediaError, match="clip has no frames"):
        sample_frames(0, 24.0, config, name="clip")


def test_time_stamps():
    assert timestamps([0, 1, 2, 3], 2.0, 2) == (0.25, 1.25)
    assert timestamps([0, 30, 60], 30.0, 2) == (0.5, 2.0)
    assert timestamps([0, 1, 2, 3], 1.0, 4) == (1.5,)
    assert timestamps([0, 1, 2, 3, 4], 1.0, 3) == (1.0, 3.5)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "2", True, 1e9, 5e-324, 9e-4, 10**400])
def test_rates_are_checked(fps):
    with pytest.raises(ConfigError, match="clip: fps is"), open_video([b"", b""], fps=fps, name="clip"):
        pass


def test_sources_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"say by fps= how many"), open_video([b"", b""]):
        pass
    with pytest.raises(ConfigError, match="leave fps out"), open_video(tmp_path / "a.mp4", fps=2):
        pass
    for source in (None, 3, {"video": 1}):
        with pytest.raises(ConfigError, match="expected a list of pictures or the path of a file"), open_video(source):
            pass
