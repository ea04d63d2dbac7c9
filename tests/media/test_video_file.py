import io
import sys
from dataclasses import replace

import pytest

from pio.errors import ConfigError, MediaError
from pio.media import video_index
from pio.media.prepared import prepare_video
from pio.media.preprocessor import VideoPreprocessorConfig
from pio.media.video import open_video
from pio.testing.compare import bits

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


def patterned(format, codec, count=150, gop=20):
    """A video whose frames differ, with a key frame now and then."""
    av = pytest.importorskip("av", reason="PyAV, which pio's extra video installs")
    out = io.BytesIO()
    with av.open(out, "w", format=format) as container:
        try:
            stream = container.add_stream(codec, rate=25)
        except (ValueError, LookupError) as error:  # FFmpeg was built without it
            pytest.skip(str(error))
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", gop
        for i in range(count):
            frame = av.VideoFrame(64, 48, "gray8")
            frame.planes[0].update(bytes((x // 4 * (i % 7 + 1) + i) % 256 for x in range(frame.planes[0].buffer_size)))
            for packet in stream.encode(frame.reformat(format="yuv420p")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue()


FILES = [("mp4", "mpeg4"), ("mp4", "libx264"), ("matroska", "libx264"), ("mpegts", "libx264"), ("mpegts", "mpeg2video")]
FILES += [("webm", "libvpx"), ("avi", "mpeg4"), ("matroska", "ffv1"), ("flv", "flv")]


@pytest.mark.parametrize(("format", "codec"), FILES)
def test_leaps_lead_to_the_same_frames(format, codec):
    data = patterned(format, codec)
    with open_video(data) as video:
        every = [bits(picture.pixels) for picture in video.pictures(range(video.count))]
        again = [bits(picture.pixels) for picture in video.pictures([3, 4])]
    assert len(every) == 150 and again == every[3:5]
    for chosen in ([0, 75, 75, 149], [1, 25, 81], [149], [40], [0, 50, 51, 140]):
        with open_video(data) as video:
            assert [bits(picture.pixels) for picture in video.pictures(chosen)] == [every[i] for i in chosen]


def test_what_lies_between_is_not_decoded():
    with open_video(patterned("mp4", "mpeg4")) as video:
        assert len(list(video.pictures([0, 81, 142]))) == 3
        assert video._effort._frames < 10


def test_a_leap_that_leads_elsewhere_changes_nothing(monkeypatch):
    data, chosen = patterned("mp4", "mpeg4"), [0, 81, 142]
    with open_video(data) as video:
        expected = [bits(picture.pixels) for picture in video.pictures(chosen)]
    for start in (lambda _, number: min(number + 3, 149), lambda *_: 149, lambda *_: 0):
        monkeypatch.setattr(video_index.VideoIndex, "start_of", start)
        with open_video(data) as video:
            assert [bits(picture.pixels) for picture in video.pictures(chosen)] == expected


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("PATIENCE", -1.0, "takes more than -1 seconds or 65536 frames to decode; cut it"),
        ("MOST_DECODED", 9, "takes more than 60 seconds or 9 frames to decode"),
        ("MOST_FRAMES", 19, "has 20 frames, at most 19 are accepted; cut it"),
    ],
)
@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_work_has_an_end(limit, value, words, format, monkeypatch):
    data = made(format)
    monkeypatch.setattr(video_index, limit, value)
    with pytest.raises(MediaError, match=rf"^clip \(bytes\) {words}"):
        prepare_video(data, replace(CONFIG, do_sample_frames=False), name="clip")


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
    with pytest.raises(ConfigError, match=r"files of video need PyAV .*: pip install av$"):
        prepare_video(b"anything", CONFIG)
