"""States of recurrent layers that are kept, each known by the block behind which it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

ON_THE_WAY: Final = 4  # so many times less is there of use in states that one longer way went on from


class KeptState:
    """States of one moment.

    Attributes:
        chain: Keys of all blocks before that moment; the last of them is what it is found by.
        slot: Of the cache, where the states lie.
        parent: Of the others that are kept, the latest one on the same way to this moment.
        children: How many have this one as their parent.
        stamp: What was the clock when they were last of use.
        parts: Whether it is likely that many ways part there.
        used: Whether somebody went on from them.
    """

    __slots__ = ("chain", "children", "parent", "parts", "slot", "stamp", "used")

    def __init__(self, chain: tuple[bytes, ...], slot: int, stamp: int, parts: bool) -> None:
        self.chain, self.slot, self.stamp, self.parts = chain, slot, stamp, parts
        self.parent: KeptState | None = None
        self.children, self.used = 0, False

    @property
    def saved(self) -> int:
        """Blocks that would have to be computed once more without them, as far as anything else is kept."""
        return len(self.chain) - (0 if self.parent is None else len(self.parent.chain))

    @property
    def on_the_way(self) -> bool:
        """Whether one longer way goes on from them, and it is not likely that others do."""
        return self.children == 1 and not self.parts

    def follow(self, parent: KeptState | None) -> None:
        """Stand behind another parent."""
        if self.parent is not None:
            self.parent.children -= 1
        if parent is not None:
            parent.children += 1
        self.parent = parent


class KeptStates:
    """Kept states by the keys of their blocks. All take the same room, so what counts is the work that each saves.

    What goes first saves least for its age, which is counted in states that came or were of use since it was so itself
    (hyperbolic caching: Blankstein et al. 2017; saved work for each byte: Marconi, Pan et al. 2024, arXiv:2411.19379).
    States that exactly one other stands behind are mostly earlier turns of a conversation that has gone on: they are
    of use to those alone who part from it, and count less, unless that is likely there. So of a conversation that goes
    on those stay that are far apart, its beginning and the last.

    Attributes:
        leaving: Called with the key of states that are about to go, while they are still kept; None calls nobody.
    """

    def __init__(self) -> None:
        self.leaving: Callable[[bytes], object] | None = None
        self._kept: dict[bytes, KeptState] = {}
        self._clock = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> KeptState | None:
        """Return the states that stand behind a block."""
        return self._kept.get(key)

    def use(self, key: bytes) -> KeptState:
        """Return the same, which somebody goes on from; what stands before them on the way is of use again, too."""
        self._clock += 1
        state = found = self._kept[key]
        found.used = True
        while state is not None:
            state.stamp, state = self._clock, state.parent
        return found

    def add(self, chain: tuple[bytes, ...], slot: int, *, parts: bool = False, anew: bool = True) -> None:
        """Keep states that stand behind a chain of blocks, behind which none are kept.

        Args:
            chain: Keys of the blocks.
            slot: Where the states lie.
            parts: Whether it is likely that many ways part there.
            anew: Whether that makes others older; not where they take the place of some before them.
        """
        self._clock += anew
        parent, length = self.last(chain), len(chain)
        state = self._kept[chain[-1]] = KeptState(chain, slot, self._clock, parts)
        state.follow(parent)
        for other in self._kept.values():
            if other.parent is parent and len(other.chain) > length and other.chain[length - 1] == chain[-1]:
                other.follow(state)

    def remove(self, key: bytes) -> KeptState:
        """Keep states no more."""
        if self.leaving is not None:
            self.leaving(key)
        state = self._kept.pop(key)
        for other in self._kept.values() if state.children else ():
            if other.parent is state:
                other.follow(state.parent)
        state.follow(None)
        return state

    def last(self, chain: Sequence[bytes]) -> KeptState | None:
        """Return the latest states on the way through a chain of blocks."""
        return next((state for key in reversed(chain) if (state := self._kept.get(key)) is not None), None)

    def least(self) -> KeptState:
        """Return those that go first."""
        return min(self._kept.values(), key=self.worth)

    def worth(self, state: KeptState) -> float:
        """Return what they save for their age."""
        return state.saved / (ON_THE_WAY if state.on_the_way else 1) / (self._clock - state.stamp + 1)

    def reach(self, chain: Sequence[bytes]) -> int:
        """Return how many blocks at the beginning of a chain lead to any that are kept."""
        return max((_common(state.chain, chain) for state in self._kept.values()), default=0)

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self._clock = 0


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """How many keys two chains begin with alike: each key stands for all before it."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == other[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
