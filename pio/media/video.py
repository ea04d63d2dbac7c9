"""Videos: which of their frames a model sees, and when those were."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, cast

from pio.errors import ConfigError, MediaError
from pio.loading.model_file import shown
from pio.media.picture import DECODE_LIMIT, MAX_BYTES, Picture, open_picture
from pio.media.preprocessor import VideoPreprocessorConfig
from pio.media.source import is_source
from pio.media.video_file import open_video_file

SLOWEST: Final = 1e-3  # frames in a second: one in a quarter of an hour
FASTEST: Final = 1e4
MOST_SEEN: Final = 1 << 16  # frames of a video


class Video(Protocol):
    """Frames in order, which are decoded when they are asked for.

    Attributes:
        count: How many there are.
        fps: How many there are in a second.
    """

    count: int
    fps: float

    def pictures(self, chosen: Sequence[int]) -> Iterator[Picture]:
        """Decode frames by their numbers, which ascend and may repeat."""
        ...


class PictureList:
    """A video that is a list of pictures.

    Attributes:
        count: How many there are.
        fps: How many there are in a second.
    """

    def __init__(self, sources: Sequence[Any], fps: float, name: str, how: dict[str, Any]) -> None:
        self._sources, self._name, self._how = sources, name, how
        self.count, self.fps = len(sources), fps

    def pictures(self, chosen: Sequence[int]) -> Iterator[Picture]:
        """Open pictures by their numbers."""
        for i in chosen:
            yield open_picture(self._sources[i], name=f"{self._name}: frame {i}", **self._how)


@contextmanager
def open_video(
    source: Any,
    *,
    fps: float | None = None,
    name: str = "video",
    decode_limit: int = DECODE_LIMIT,
    max_bytes: int = MAX_BYTES,
    background: tuple[int, int, int] | None = None,
    allow_remote: Sequence[str] = (),
) -> Generator[Video]:
    """Open a video; frames are decoded when they are asked for.

    Args:
        source: A list of what ``open_picture`` takes, in order; a file as ``open_picture`` takes it; or a ``Video``.
        fps: Pictures of a list in a second; a file says it itself.
        name: What messages call it.
        decode_limit: The largest width * height of a frame; looked at before anything is decoded.
        max_bytes: The largest file, of the video or of each picture.
        background: The colour to put pictures with transparency on.
        allow_remote: Addresses on the network that may be asked; see ``open_picture``.

    Raises:
        MediaError: It has no frames, or cannot be read.
        ConfigError: The source is of no known kind, ``fps`` is missing or not to be given, or PyAV is not installed.
    """
    if fps is not None and (type(fps) not in (int, float) or not SLOWEST <= fps <= FASTEST):  # false of NaN
        raise ConfigError(f"{name}: fps is {shown(fps)}, expected frames in a second, from 0.001 to 10000")
    if is_source(source):
        if fps is not None:
            raise ConfigError(f"{name} is a file, which says itself how many frames a second has; leave fps out")
        with open_video_file(source, name, decode_limit, max_bytes, allow_remote) as file:
            yield file
    elif isinstance(source, (list, tuple)):
        pictures = cast("Sequence[Any]", source)
        if not pictures:
            raise MediaError(f"{name} has no frames; give two or more")
        if fps is None:
            raise ConfigError(f"{name} is a list of pictures; say by fps= how many of them a second has")
        limits = {"decode_limit": decode_limit, "max_bytes": max_bytes}
        how: dict[str, Any] = {**limits, "background": background, "allow_remote": allow_remote}
        yield PictureList(pictures, float(fps), name, how)
    elif hasattr(source, "pictures"):
        yield source
    else:
        raise ConfigError(f"{name} is a {type(source).__name__}, expected a list of pictures or the path of a file")


def sample_frames(count: int, fps: float, config: VideoPreprocessorConfig, *, name: str = "video") -> list[int]:
    """Return which frames of a video a model sees: evenly spread, the first and the last among them.

    Args:
        count: Frames of the video.
        fps: Frames of the video in a second.
        config: How many to take.
        name: What messages call it.

    Raises:
        MediaError: There are fewer frames than a time step has, more than are ever looked at, or so many or few of them
            in a second as no video has.
    """
    if count < 1:
        raise MediaError(f"{name} has no frames; give two or more")
    if not SLOWEST <= fps <= FASTEST:
        raise MediaError(
            f"{name} has {fps:g} frames in a second, expected from 0.001 to 10000; give its pictures and fps"
        )
    wanted = count
    if config.do_sample_frames:
        if config.num_frames is not None:
            wanted = config.num_frames
        else:
            rate = int(count / fps * config.fps) if config.fps is not None else count
            wanted = min(max(rate, config.min_frames), config.max_frames, count)
    if min(count, wanted) < config.temporal_patch_size:
        raise MediaError(
            f"{name} has {min(count, wanted)} frame, expected at least {config.temporal_patch_size}; give a single "
            "frame as a picture"
        )
    if wanted > MOST_SEEN:
        raise MediaError(
            f"{name}: {wanted} frames were to be seen, at most {MOST_SEEN} are; cut it, or give num_frames"
        )
    if wanted == count:
        return list(range(count))
    step = (count - 1) / (wanted - 1)
    return [*(round(i * step) for i in range(wanted - 1)), count - 1]  # halves to even


def timestamps(chosen: Sequence[int], fps: float, temporal: int) -> tuple[float, ...]:
    """Return the seconds of each time step: the mean of those of its first and its last frame.

    Args:
        chosen: Numbers of frames.
        fps: Frames in a second.
        temporal: Frames in a time step; the last frame is repeated where the last step lacks some.
    """
    seconds = [i / fps for i in chosen]
    seconds += seconds[-1:] * (-len(seconds) % temporal)
    return tuple((seconds[i] + seconds[i + temporal - 1]) / 2 for i in range(0, len(seconds), temporal))
