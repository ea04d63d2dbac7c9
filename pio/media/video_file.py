"""Files of video, decoded frame by frame by PyAV."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from pio.errors import ConfigError, MediaError, PioError
from pio.media.picture import Picture
from pio.media.pixels import check_pixels
from pio.media.source import open_source
from pio.media.video_index import Effort, check_count, packets, read_index
from pio.memory.refusal import memory_refused
from pio.tensor import Tensor

# FFmpeg knows formats that are lists of other files and addresses; these hold all that they show.
_FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg"
_GAIN: Final = 16  # frames that are decoded rather than leapt over, which costs about as much


class VideoFile:
    """An open file of video.

    Attributes:
        count: How many frames it says that it has, or how many packets where it does not say.
        fps: Frames in a second, on average.
    """

    def __init__(self, container: Any, where: str, decode_limit: int) -> None:
        self._container, self._where = container, where
        streams = container.streams.video
        if not streams:
            raise MediaError(f"{where} has no video in it; give a file that has")
        self._stream = streams[0]
        check_pixels(where, self._stream.height or 0, self._stream.width or 0, decode_limit)
        self._size = self._stream.height, self._stream.width
        rate = self._stream.average_rate or self._stream.guessed_rate
        if not rate:
            raise MediaError(f"{where} does not say how many frames a second has; save it again, or give its pictures")
        self.fps = float(rate)
        self._effort = Effort(where)
        self.count: int = self._stream.frames or sum(1 for _ in self._packets())
        check_count(where, self.count)
        if not self.count:
            raise MediaError(f"{where} has no frames; it is damaged, get or save it again")

    def _packets(self) -> Iterator[Any]:
        return packets(self._container, self._stream, self._where, self._effort)

    def pictures(self, chosen: Sequence[int]) -> Iterator[Picture]:
        """Decode frames by their numbers, which ascend and may repeat.

        Where they lie far apart, those between them are not decoded as far as the file's key frames allow.

        Raises:
            MediaError: The file is damaged, ends before, changes its size, or takes too long.
        """
        with _decoding(self._where):
            done = 0
            for frame in self._sparse(chosen) if _is_sparse(chosen) else ():
                picture = self._picture(frame, chosen[done])
                yield picture
                done += 1
                while done < len(chosen) and chosen[done] == chosen[done - 1]:
                    yield picture
                    done += 1
            if done < len(chosen):  # they lie close together, or the file does not say where
                yield from self._in_order(chosen[done:])

    def _in_order(self, chosen: Sequence[int]) -> Iterator[Picture]:
        """Decode all frames up to the last of these."""
        place = 0
        self._container.seek(0)
        for i, frame in enumerate(self._decoded()):
            if i == chosen[place]:
                picture = self._picture(frame, i)
                while place < len(chosen) and chosen[place] == i:
                    yield picture
                    place += 1
                if place == len(chosen):
                    return
        raise MediaError(f"{self._where} ends before frame {chosen[place]}; it is damaged, get or save it again")

    def _sparse(self, chosen: Sequence[int]) -> Iterator[Any]:
        """Decode each of these once, by leaps to key frames; end where that does not lead to the next one."""
        index = read_index(self._container, self._stream, self._where, self._effort)
        if index is None or len(index.times) != self.count or chosen[-1] >= self.count:
            return
        following, source = 0, self._decoded()  # the frame that the source gives next, if it gives what it should
        for i in dict.fromkeys(chosen):
            start = index.start_of(i)
            if start > following + _GAIN:
                self._container.seek(index.times[start], stream=self._stream)
                source = self._decoded()
            found = None
            for frame in source:
                at = index.number(frame.pts)
                found, following = (frame, i + 1) if at == i else (None, following)
                if at is None or at >= i:
                    break
            if found is None:
                return
            yield found

    def _decoded(self) -> Iterator[Any]:
        source = self._container.decode(self._stream)
        while True:
            with self._effort.spent(frames=1):
                frame = next(source, None)
            if frame is None:
                return
            yield frame

    def _picture(self, frame: Any, number: int) -> Picture:
        if (frame.height, frame.width) != self._size:
            raise MediaError(
                f"{self._where}: frame {number} has {frame.width} x {frame.height} pixels, the first one "
                f"{self._size[1]} x {self._size[0]}; save it with frames of one size"
            )
        return Picture(_pixels(frame))


def _is_sparse(chosen: Sequence[int]) -> bool:
    """Return whether these frames lie so far apart that most of those between them need not be decoded."""
    return len(chosen) > 0 and chosen[-1] > _GAIN * len(set(chosen))


@contextmanager
def open_video_file(
    source: Any, name: str, decode_limit: int, max_bytes: int, allow_remote: Sequence[str]
) -> Generator[VideoFile]:
    """Open a file of video; arguments and errors as in ``open_video``."""
    try:
        av = import_module("av")
    except ImportError as error:
        raise ConfigError(f"{name}: files of video need PyAV ({error}): pip install av") from error
    stream, where = open_source(source, name, max_bytes, allow_remote)
    with stream:
        with _decoding(where):
            container = av.open(stream, options={"format_whitelist": _FORMATS})
        with container:
            with _decoding(where):
                file = VideoFile(container, where, decode_limit)
            yield file


@contextmanager
def _decoding(where: str) -> Generator[None]:
    """Raise a MediaError in the place of whatever FFmpeg raises of a damaged file."""
    try:
        yield
    except PioError:
        raise
    except Exception as error:
        # FFmpeg also says that memory lacks where a damaged header asks for too much of it
        refused = memory_refused(error, f"decoding {where}") if type(error) is MemoryError else None
        if refused is not None:
            raise refused from error
        reason = f"{type(error).__name__}: {error}"[:160]
        raise MediaError(f"{where} cannot be decoded as video ({reason}); get it again, or save it as MP4") from error


def _pixels(frame: Any) -> Tensor:
    """Return red, green and blue of a frame, without the gaps behind its rows."""
    plane = frame.reformat(format="rgb24").planes[0]
    rows = Tensor.from_buffer(bytes(plane), "uint8", (-1, plane.line_size))
    return rows[: frame.height, : 3 * frame.width].contiguous().reshape(frame.height, frame.width, 3)
