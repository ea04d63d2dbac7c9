"""Slots of states: those of sequences that run, and those that are kept for whoever begins as one of them did."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence as Collection

from pio.cache.kept_states import KeptState, KeptStates
from pio.cache.known_blocks import KnownBlocks
from pio.cache.protocol import Cache
from pio.engine.sequence import NO_SLOT, Sequence
from pio.engine.state_points import Point, state_points
from pio.errors import CacheError


class StateSlots:
    """Gives each sequence that runs a slot, and keeps states of some moments in the others.

    A sequence that is cut within a step leaves its states in its slot and goes on in another one, so that keeping them
    costs no step and no copy. What an answer has come to is copied, whenever a block of it is whole; that of one
    before makes room for it.

    Attributes:
        num_slots: Sequences that run at once.
        num_free: How many more may begin.
        most: How many states may be kept.
        kept: Those that are.
    """

    def __init__(self, cache: Cache, num_slots: int, most: int, known: KnownBlocks, root: bytes) -> None:
        """Have all slots.

        Args:
            cache: It has as many as run and are kept, or no states at all.
            num_slots: Sequences that run at once.
            most: How many states may be kept.
            known: Blocks; those behind which no states are kept any more are told to go first.
            root: What the keys of blocks begin from.
        """
        self._cache, self._known, self._root = cache, known, root
        self._size = cache.block_size
        self.num_slots, self.most = num_slots, most
        self.kept = KeptStates()
        self.reset()

    def reset(self) -> None:
        """Have all slots back, whoever holds them."""
        self._free = list(range(self.num_slots + self.most - 1, -1, -1))  # a stack: low numbers first, warm ones again
        self.num_free = self.num_slots
        self._lent = 0  # to sequences for their next step, beside their own
        self._rolling = 0  # sequences that keep what their answer has come to
        self.kept.clear()

    def take(self) -> int:
        """Return a slot for a sequence, of which ``num_free`` says that there is one."""
        self.num_free -= 1
        return self._free.pop()

    def give_back(self, sequence: Sequence) -> None:
        """Take back the slot of a sequence, if it has one; ``settle`` has had those that it was lent.

        Raises:
            CacheError: It was taken back before.
        """
        if sequence.rolling:
            self._rolling -= 1
        sequence.rolling, sequence.rolled, sequence.awaited = b"", 0, None
        sequence.points.clear()
        slot, sequence.slot = sequence.slot, NO_SLOT
        if slot != NO_SLOT:
            if slot in self._free:
                raise CacheError(f"slot {slot} of the cache was released twice")
            self._free.append(slot)
            self.num_free += 1

    def begin(self, sequence: Sequence, found: Collection[bytes], known: int, end: int) -> None:
        """Let a sequence go on from kept states, and plan where some of its own are kept.

        Args:
            sequence: It has its slot.
            found: Keys of the blocks that it begins with; behind the last of them states are kept.
            known: Blocks that are known of it, at least as many.
            end: Blocks of it that can be known.
        """
        if found:
            self._cache.copy_states(self.kept.use(found[-1]).slot, sequence.slot)
        end = min(end, (len(sequence.tokens) - 1) // self._size)
        most, sequence.awaited = max(1, self.most // 2), None  # the rest is for others
        sequence.points = state_points(len(found), end, known, sequence.turns, self._size, most)

    def lend(self) -> int:
        """Return a slot for states that are read, which others give up where there is none; ``NO_SLOT`` for none."""
        if len(self.kept) + self._lent >= self.most:
            if not len(self.kept):
                return NO_SLOT
            self._drop(self.kept.remove(self.kept.least().chain[-1]))
        self._lent += 1
        return self._free.pop()

    def take_back(self, slot: int) -> None:
        """Have a slot back that was lent."""
        self._lent -= 1
        self._free.append(slot)

    def take_in(self, sequence: Sequence, slot: int) -> None:
        """Keep states that were read into a slot that was lent, and let their sequence go on from them."""
        at = sequence.num_computed
        chain = self._chain(sequence, at)
        self._cache.copy_states(slot, sequence.slot)  # first: where that fails, the slot is still lent
        if self.kept.get(chain[-1]) is None:
            self._lent -= 1
            self.kept.add(chain, slot, parts=bool(sequence.turns) and sequence.turns[0] // self._size == len(chain))
        else:  # another one was there first
            self.take_back(slot)
        self.kept.use(chain[-1])
        sequence.points = [point for point in sequence.points if point.length > at]

    def part(self, sequence: Sequence, blocks: int) -> None:
        """Have states of a sequence kept behind so many blocks, for somebody goes another way from there."""
        point = Point(blocks * self._size, always=True, parts=False)
        if point.length > sequence.num_computed:
            sequence.points = [other for other in sequence.points if other.length != point.length]
            insort(sequence.points, point)

    def cut(self, sequence: Sequence) -> None:
        """Lend a sequence slots for the points that its next step passes; what is right at its end comes after it."""
        points, end = sequence.points, sequence.num_computed + sequence.scheduled
        while points and points[0].length < end:
            length, always, parts = points.pop(0)
            if length > sequence.num_computed and (slot := self._spare(sequence, length, always)) != NO_SLOT:
                sequence.cuts.append((length, slot, parts))

    def settle(self, sequence: Sequence) -> None:
        """Keep the states that a step has left, if it came to its end; all blocks before them are known."""
        for length, slot, parts in sequence.cuts:
            self._lent -= 1
            chain = self._chain(sequence, length)
            if length <= sequence.num_computed and self.kept.get(chain[-1]) is None:
                self.kept.add(chain, slot, parts=parts)
            else:  # it did not come there, or another one was there first
                self._free.append(slot)
        sequence.cuts.clear()

    def follow(self, sequence: Sequence) -> None:
        """Keep what a sequence has come to, where that is a point of it or a whole block of its answer."""
        at, points = sequence.num_computed, sequence.points
        if at % self._size or sequence.keys.named(at, self._size) * self._size < at:
            return
        parts, anew = False, True
        if points and points[0].length == at:
            _, always, parts = points.pop(0)
            slot = self._spare(sequence, at, always)
        elif at > sequence.prompt_length:
            slot, anew = self._next(sequence)
        else:
            return
        if slot != NO_SLOT:
            self._lent -= 1
            self._cache.copy_states(sequence.slot, slot)
            self.kept.add(self._chain(sequence, at), slot, parts=parts, anew=anew)

    def draft_room(self, sequence: Sequence) -> int | None:
        """Return how many tokens an answer may draft, so as not to pass the next block where its states are due.

        That is so where they were kept two blocks before, or more; else it may draft as many as it likes.
        """
        at = sequence.num_computed
        if at - max(sequence.rolled, sequence.prompt_length) < 2 * self._size:
            return None
        if not sequence.rolling and self._rolling >= self.most // 2:
            return None  # others have all that there is for that
        return self._size - 1 - at % self._size

    def lose(self, key: bytes) -> None:
        """Keep no states behind a block that is not known any more."""
        if self.kept.get(key) is not None:
            self._drop(self.kept.remove(key))

    def _next(self, sequence: Sequence) -> tuple[int, bool]:
        """Return a slot for what an answer has come to, and whether it is another one than that of the block before.

        That one is taken where nobody went on from there.
        """
        before, rolls = self.kept.get(sequence.rolling), bool(sequence.rolling)
        if not rolls and self._rolling >= self.most // 2:
            return NO_SLOT, True
        replaces = before is not None and not before.used
        if replaces:
            self._free.append(self.kept.remove(sequence.rolling).slot)
        slot = self._spare(sequence, sequence.num_computed, always=True)
        if slot != NO_SLOT:
            self._rolling += not rolls
            sequence.rolling, sequence.rolled = self._chain(sequence, sequence.num_computed)[-1], sequence.num_computed
        return slot, not replaces

    def _spare(self, sequence: Sequence, length: int, always: bool) -> int:
        """Return a slot for states of a sequence as ``lend`` does; none where those that would give it up save more."""
        chain = self._chain(sequence, length)
        if self.kept.get(chain[-1]) is not None:  # they are kept already
            return NO_SLOT
        if not always and len(self.kept) and len(self.kept) + self._lent >= self.most:
            least, last = self.kept.least(), self.kept.last(chain)
            if self.kept.worth(least) > len(chain) - (0 if last is None else len(last.chain)):
                return NO_SLOT
        return self.lend()

    def _chain(self, sequence: Sequence, length: int) -> tuple[bytes, ...]:
        """Return the keys of a sequence's first blocks."""
        blocks = length // self._size
        sequence.keys.key(blocks - 1, sequence.tokens, self._size, self._root)
        return sequence.keys.first(blocks)

    def _drop(self, state: KeptState) -> None:
        """Have a slot back, and let the blocks go first that led to nothing else."""
        self._free.append(state.slot)
        self._known.go_first(state.chain[self.kept.reach(state.chain) :])
