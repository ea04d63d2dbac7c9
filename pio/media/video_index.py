"""Where the frames of a video file lie: when each is shown, and from which ones decoding can begin."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from pio.errors import MediaError

MOST_FRAMES: Final = 1 << 22  # of a file: nineteen hours at sixty a second
MOST_DECODED: Final = 1 << 16  # frames, for those that a model sees of one file
PATIENCE: Final = 60.0  # seconds for decoding them


class Effort:
    """What has been done for one file, which has an end."""

    def __init__(self, where: str) -> None:
        self._where, self._seconds, self._frames = where, 0.0, 0

    @contextmanager
    def spent(self, frames: int = 0) -> Generator[None]:
        """Count what is done within.

        Raises:
            MediaError: It was too much.
        """
        begin = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - begin
        self._frames += frames
        if self._seconds > PATIENCE or self._frames > MOST_DECODED:
            raise MediaError(
                f"{self._where} takes more than {PATIENCE:g} seconds or {MOST_DECODED} frames to decode; cut it, save "
                "it smaller or with more key frames, or give its pictures"
            )


class VideoIndex:
    """Frames in the order in which they are shown.

    Attributes:
        times: When each is shown, in the stream's own unit, ascending.
    """

    def __init__(self, times: Sequence[int], starts: Sequence[int]) -> None:
        """Keep the times of all frames, and the numbers of those that need no others before them, both ascending."""
        self.times, self._starts = times, starts
        self._numbers = {at: i for i, at in enumerate(times)}

    def number(self, at: int | None) -> int | None:
        """Return which frame is shown at that time."""
        return None if at is None else self._numbers.get(at)

    def start_of(self, number: int) -> int:
        """Return from which frame on to decode to get this one."""
        place = bisect_right(self._starts, number)
        return self._starts[place - 1] if place else 0


def packets(container: Any, stream: Any, where: str, effort: Effort) -> Iterator[Any]:
    """Read the packets of a stream that hold something, each counted, and go back to the beginning.

    Raises:
        MediaError: There are too many, or it takes too long.
    """
    count, source = 0, container.demux(stream)
    while True:
        with effort.spent():
            packet = next(source, None)
        if packet is None:
            break
        if packet.size > 0:
            count += 1
            check_count(where, count)
            yield packet
    container.seek(0)


def check_count(where: str, count: int) -> None:
    """Raise a MediaError where a file has, or says that it has, more frames than any that is looked at."""
    if count > MOST_FRAMES:
        raise MediaError(f"{where} has {count} frames, at most {MOST_FRAMES} are accepted; cut it")


def read_index(container: Any, stream: Any, where: str, effort: Effort) -> VideoIndex | None:
    """Return where the frames of a stream lie; None where the file does not say it of all."""
    times: list[int] = []
    keys: list[int] = []
    whole = True
    for packet in packets(container, stream, where, effort):
        if packet.pts is None or packet.is_discard:
            whole = False
        elif whole:
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    times.sort()
    if not whole or any(a == b for a, b in pairwise(times)):
        return None
    return VideoIndex(times, [bisect_left(times, key) for key in sorted(keys)])
