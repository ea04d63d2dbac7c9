import io
import sys

import pytest

from pio.errors import ConfigError, MediaError
from pio.media.prepared import prepare_video
from pio.media.preprocessor import VideoPreprocessorConfig
from pio.media.video import open_video

CONFIG = VideoPreprocessorConfig()


def made(format="mp4", codec="mpeg4", count=20, rate=10, size=(64, 48)):
    """A video whose frames become brighter."""
    av = pytest.importorskip("av", reason="PyAV, which pio's extra video installs")
    out = io.BytesIO()
    with av.open(out, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(count):
            frame = av.VideoFrame(*size, "gray8")
            frame.planes[0].update(bytes([10 + 10 * i]) * frame.planes[0].buffer_size)
            for packet in stream.encode(frame.reformat(format="yuv420p")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue()


@pytest.mark.parametrize(("format", "codec"), [("mp4", "mpeg4"), ("matroska", "mpeg4"), ("avi", "mpeg4")])
def test_files(format, codec, tmp_path):
    path = tmp_path / "clip"
    path.write_bytes(made(format, codec))
    for source in (path, path.read_bytes()):
        with open_video(source) as video:
            assert (video.count, video.fps) == (20, 10.0)
            found = list(video.pictures([0, 7, 7, 19]))
        levels = [picture.pixels[20, 30, 0].item() for picture in found]
        assert [picture.pixels.shape for picture in found] == [(48, 64, 3)] * 4
        assert levels[1] == levels[2] and levels[0] < levels[1] < levels[3]


def test_a_file_is_prepared():
    found = prepare_video(made(), CONFIG)
    assert found.grid[0] == 2 and found.timestamps == (0.3, 1.6)
    assert found.frames.shape == (4, 160, 224, 3)  # 131,072 pixels or more, of all frames together


def test_videos_that_are_none():
    whole = made()
    for data, words in (
        (b"", "holds 0 bytes"),
        (b"no video at all" * 100, "cannot be decoded as video"),
        (whole[: len(whole) // 2], "cannot be decoded as video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "cannot be decoded as video"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "cannot be decoded as video"),
    ):
        with pytest.raises(MediaError, match=rf"^clip \(bytes\).*{words}"):
            prepare_video(data, CONFIG, name="clip")


def test_limits_are_the_callers(tmp_path):
    whole = made()
    with pytest.raises(MediaError, match="64 x 48 pixels, at most 3000 are accepted"):
        prepare_video(whole, CONFIG, decode_limit=3000)
    with pytest.raises(MediaError, match="at most 1000 are accepted"):
        prepare_video(whole, CONFIG, max_bytes=1000)
    with pytest.raises(MediaError, match="there is no such file"):
        prepare_video(tmp_path / "missing.mp4", CONFIG)
    with pytest.raises(MediaError, match="lies on the network"):
        prepare_video("https://example.com/a.mp4", CONFIG)


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r'files of video need PyAV .*pip install "pio\[video\]"'):
        prepare_video(b"anything", CONFIG)
