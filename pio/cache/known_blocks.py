"""Blocks of a cache that are known by what they hold, so that it need not be computed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable


class KnownBlocks:
    """Full blocks by their keys, and of these the ones that nobody holds, which stay until their room is needed.

    Who holds a block holds all that stand before it too, and gives these back after it. So among those that are kept no
    block is older than one that stands behind it, and what goes first is never needed to reach what stays. Those of
    little use, for no states are kept behind them where layers need states, go before all others.

    Attributes:
        tokens: Tokens that they had not to compute.
        leaving: Called with the key of a block whose room is needed, while it is still known; None calls nobody.
    """

    def __init__(self) -> None:
        self._blocks: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()  # what was held least recently comes first
        self.tokens = 0
        self.leaving: Callable[[bytes], object] | None = None

    def __len__(self) -> int:
        """How many are known, held or not."""
        return len(self._keys)

    @property
    def num_kept(self) -> int:
        """How many of them nobody holds."""
        return len(self._kept)

    def find(self, key: bytes) -> int | None:
        """Return the block with that key."""
        return self._blocks.get(key)

    def add(self, block: int, key: bytes) -> None:
        """Know a block that somebody holds by a key that no other has."""
        self._blocks[key] = block
        self._keys[block] = key

    def hold(self, block: int) -> None:
        """Note that somebody holds a block that nobody held."""
        del self._kept[block]

    def keep(self, block: int, *, first: bool = False) -> bool:
        """Note that nobody holds a block any more.

        Args:
            block: Which one.
            first: Whether it goes before all others.

        Returns:
            Whether it is known, and is kept therefore.
        """
        if block not in self._keys:
            return False
        self._kept[block] = None
        if first:
            self._kept.move_to_end(block, last=False)
        return True

    def go_first(self, keys: Iterable[bytes]) -> None:
        """Have blocks go before all others, the last of them first; those that somebody holds stay as they are."""
        for key in keys:
            block = self._blocks.get(key)
            if block in self._kept:
                self._kept.move_to_end(block, last=False)

    def evict(self) -> tuple[int, bytes]:
        """Forget the block that goes first, of those that are kept, and return it and its key."""
        block = next(iter(self._kept))
        key = self._keys[block]
        if self.leaving is not None:
            self.leaving(key)
        del self._kept[block], self._keys[block], self._blocks[key]
        return block, key

    def clear(self) -> None:
        """Forget all of them."""
        self._blocks.clear()
        self._keys.clear()
        self._kept.clear()
