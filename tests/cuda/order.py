"""Who may touch memory: work of several streams, ordered by events and by waiting in Python alone.

Each piece of work has a clock: how far it knows every stream to be, when it begins. Two pieces of different streams
that touch the same block, one of them writing, are an error unless the later one's clock has the earlier one: a real
GPU may do them in any order, or both at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Clock = dict[int, int]


def merge(clock: Clock, other: Clock) -> None:
    """Let a clock know what another one knows."""
    for stream, count in other.items():
        clock[stream] = max(clock.get(stream, 0), count)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A piece of work."""

    what: str
    stream: int
    number: int
    clock: Clock

    def knows(self, other: Stamp) -> bool:
        """Return whether that was done for certain when this begins."""
        return self.clock.get(other.stream, 0) >= other.number


@dataclass(slots=True)
class History:
    """What was done to a block of memory since it was last written."""

    written: Stamp | None = None
    read: dict[int, Stamp] = field(default_factory=dict[int, Stamp])


class Order:
    """The clocks of Python and of all streams, and what was done to each block of memory."""

    def __init__(self) -> None:
        self._python: Clock = {}
        self._streams: dict[int, Clock] = {}
        self._blocks: dict[int, History] = {}

    def ask(self, stream: int, what: str) -> Stamp:
        """Note that Python asks a stream for work."""
        clock = self._streams.setdefault(stream, {})
        merge(clock, self._python)
        clock[stream] = clock.get(stream, 0) + 1
        return Stamp(what, stream, clock[stream], dict(clock))

    def follow(self, stream: int, mark: Stamp) -> None:
        """Let a stream go on behind a mark."""
        clock = self._streams.setdefault(stream, {})
        merge(clock, self._python)
        merge(clock, mark.clock)

    def reached(self, mark: Stamp) -> None:
        """Note that Python has waited for a mark."""
        merge(self._python, mark.clock)

    def waited(self, stream: int) -> None:
        """Note that Python has waited for all of a stream."""
        merge(self._python, self._streams.get(stream, {}))

    def touch(self, stamp: Stamp, reads: Iterable[int], writes: Iterable[int]) -> str:
        """Note that a piece of work is done, which touches these blocks; return what is wrong with it, or nothing."""
        for block in writes:
            history = self._blocks.setdefault(block, History())
            for other in (history.written, *history.read.values()):
                if other is not None and not stamp.knows(other):
                    return _error(stamp, "writes", other, "touches", block)
            history.written, history.read = stamp, {}
        for block in reads:
            history = self._blocks.setdefault(block, History())
            if history.written is not None and not stamp.knows(history.written):
                return _error(stamp, "reads", history.written, "writes", block)
            history.read[stamp.stream] = stamp
        return ""


def _error(stamp: Stamp, does: str, other: Stamp, did: str, block: int) -> str:
    return (
        f"{stamp.what} of stream {stamp.stream} {does} the block at {block:#x} that {other.what} of stream "
        f"{other.stream} {did}, and nothing makes the one wait for the other"
    )
