"""Who waits for a model: in the order of arrival, with a head start for those of a higher priority."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import merge
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pio.engine.sequence import Sequence

HEAD_START: Final = 10.0  # seconds a step of priority; whoever has waited so much longer goes first: none starves


class WaitingLine:
    """Sequences by their turn; each can be taken out wherever it stands, in the same time however many there are."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._levels: dict[int, OrderedDict[Sequence, None]] = {}  # of a priority, in the order of arrival

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait behind all others of its priority."""
        sequence.order = self._clock() - HEAD_START * sequence.priority
        self._level(sequence)[sequence] = None

    def put_back(self, sequence: Sequence) -> None:
        """Let a sequence that had its turn wait again, before all of its priority that came later."""
        level = self._level(sequence)
        before = [s for s in level if s.order < sequence.order]  # few: those that others were let pass
        level[sequence] = None
        for s in (sequence, *reversed(before)):
            level.move_to_end(s, last=False)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, if it is there."""
        level = self._levels.get(sequence.priority)
        if level is not None:
            level.pop(sequence, None)
            if not level:
                del self._levels[sequence.priority]

    def clear(self) -> None:
        """Take all out."""
        self._levels.clear()

    def __iter__(self) -> Iterator[Sequence]:
        """All of them, whose turn it is first; they must not change meanwhile."""
        levels = list(self._levels.values())
        return iter(levels[0]) if len(levels) == 1 else merge(*levels, key=lambda sequence: sequence.order)

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def _level(self, sequence: Sequence) -> OrderedDict[Sequence, None]:
        return self._levels.setdefault(sequence.priority, OrderedDict())
