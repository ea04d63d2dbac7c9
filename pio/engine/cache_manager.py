"""Who holds which blocks and slots of a cache."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import cast

from pio.cache.known_blocks import KnownBlocks
from pio.cache.protocol import Cache, TentativeCache, tentative_tokens
from pio.engine.block_keys import root_key
from pio.engine.block_pool import BlockPool
from pio.engine.sequence import NO_SLOT, Sequence
from pio.engine.state_slots import StateSlots
from pio.errors import ConfigError


class CacheManager:
    """A fixed pool of blocks and slots: sequences take them as they grow and give all back when they end.

    A block may have several owners, as have those of a prompt with several answers. Before one of them writes into it,
    that one gets a copy of its own. A slot has one owner.

    Full blocks are known by what they hold, and stay when the last owner gives them back, until somebody needs the
    room; a sequence that begins with the same tokens gets them as they are. Where layers keep states, which stand
    behind one token alone, it gets them as far as states are kept.

    Attributes:
        block_size: Tokens a block.
        num_blocks: Blocks in the pool.
        num_slots: Sequences that hold anything at once.
        tentative_tokens: Tokens of a step that may turn out not to stand, of sequences that have such.
        known: Blocks that are known by what they hold.
        on_release: Called with each sequence that gives its blocks back, before it does.
        states: Who has which slot, and what is kept in the others.
    """

    def __init__(self, cache: Cache, num_slots: int, *, prefix_cache: bool = True, identity: bytes = b"") -> None:
        """Manage a cache that nobody else hands out.

        Args:
            cache: Made by the model.
            num_slots: Sequences that run at once, at most as many as the cache has states for.
            prefix_cache: Whether blocks are known by what they hold.
            identity: Of the model, see ``root_key``.

        Raises:
            ConfigError: The cache has no block or token.
        """
        if cache.num_blocks < 1 or cache.block_size < 1:
            found = f"{cache.num_blocks} of {cache.block_size}"
            raise ConfigError(f"a cache needs at least one block of one token, found {found}")
        self._cache = cache
        self.num_blocks = cache.num_blocks
        self.block_size = cache.block_size
        self.num_slots = num_slots
        self.tentative_tokens = tentative_tokens(cache)
        self.known = KnownBlocks()
        most = max(0, cache.state_slots - num_slots) if prefix_cache and cache.state_bytes else 0
        self._knows = prefix_cache and (most > 0 or not cache.state_bytes)
        self._recurs = cache.state_bytes > 0
        self._root = root_key(cache, identity)
        self.states = StateSlots(cache, num_slots, most, self.known, self._root)
        self._pool = BlockPool(cache.num_blocks, self.known, self.states.lose)
        self.on_release: Callable[[Sequence], object] | None = None

    def reset(self) -> None:
        """Have all blocks and slots back, whoever holds them."""
        self._pool.reset()
        self.states.reset()

    @property
    def num_free(self) -> int:
        """Blocks nobody holds, those among them that are kept for what they hold."""
        return self._pool.num_free

    @property
    def num_shared(self) -> int:
        """Blocks with more than one owner."""
        return self._pool.num_shared

    @property
    def num_free_slots(self) -> int:
        """Slots nobody holds."""
        return self.states.num_free

    @property
    def root(self) -> bytes:
        """What the keys of its blocks begin from."""
        return self._root

    @property
    def num_tokens(self) -> int:
        """Tokens that fit into the whole pool."""
        return self.num_blocks * self.block_size

    def key(self, sequence: Sequence, index: int) -> bytes:
        """Return what a block of a sequence is known by, one that can have a key, see ``BlockKeys.named``."""
        return sequence.keys.key(index, sequence.tokens, self.block_size, self._root)

    def owners(self, block: int) -> int:
        """How many sequences hold a block."""
        return self._pool.owners(block)

    def blocks_needed(self, length: int) -> int:
        """Blocks for a sequence of that many tokens."""
        return -(-length // self.block_size)

    def admit(self, sequence: Sequence, reserve: int) -> bool:
        """Give a sequence a slot, and blocks for all of its tokens.

        Args:
            sequence: It holds nothing so far.
            reserve: Blocks that must be free afterwards.

        Returns:
            Whether there is room; where there is none, nothing is taken.
        """
        length = len(sequence.tokens)
        if not self.num_free_slots:
            return False
        found, known = self._find(sequence)
        taken = self.blocks_needed(length) - sum(self.owners(block) > 0 for block in found)
        if self.num_free - taken < reserve:
            return False
        sequence.slot = self.states.take()
        self._reuse(sequence, found)
        if self.states.most:
            end = sequence.keys.named(length, self.block_size)
            self.states.begin(sequence, sequence.keys.first(len(found)), known, end)
        return self.grow(sequence, length)

    def unread(self, sequence: Sequence) -> int:
        """Return how many tokens of a sequence that has not begun the model would have to read now."""
        return len(sequence.tokens) - len(self._find(sequence)[0]) * self.block_size

    def learn(self, sequences: Iterable[Sequence]) -> None:
        """Have the blocks known that the model has filled since; of two that hold the same one is enough."""
        for sequence in sequences if self._knows else ():
            keys, table = sequence.keys, sequence.blocks
            full = keys.named(sequence.num_computed, self.block_size)
            for i in range(keys.known, full):
                key = self.key(sequence, i)
                block = self.known.find(key)
                if block is None:
                    self.known.add(table[i], key)
                elif block != table[i]:
                    self._pool.hold(block)
                    self._pool.give_back(table[i])
                    table[i] = block
            keys.known = max(keys.known, full)

    def take_in(self, sequence: Sequence, blocks: int, *, counted: bool, slot: int = NO_SLOT) -> None:
        """Let a sequence that has not run yet begin behind more blocks, which hold what it would compute.

        Args:
            sequence: Which one.
            blocks: How many it begins behind; they are in its table, or known.
            counted: Whether what it gains counts as found.
            slot: Where its states behind them were read to, one that ``StateSlots.lend`` gave; none without states.
        """
        gained = blocks * self.block_size - sequence.num_computed
        sequence.num_computed = sequence.reused = blocks * self.block_size
        if counted:
            sequence.cached_tokens += gained
            self.known.tokens += gained
        self.learn((sequence,))
        if slot != NO_SLOT:
            self.states.take_in(sequence, slot)

    def awaits(self, sequence: Sequence, others: Iterable[Sequence]) -> bool:
        """Whether one of the others is about to compute a block that a sequence would find."""
        if not self._knows:
            return False
        size = self.block_size
        most = sequence.keys.named(len(sequence.tokens) - sequence.outputs, size)
        for other in others:
            at = other.num_computed // size  # the block that comes next
            if at < most and other.pending > 1 and at < other.keys.named(len(other.tokens), size):
                if self.key(sequence, at) == self.key(other, at):
                    self._part(other, sequence, at, most)
                    return True
        return False

    def cut(self, sequences: Iterable[Sequence]) -> None:
        """Have sequences keep states on the way through their next step, where there are any to keep."""
        for sequence in sequences if self.states.most else ():
            if sequence.points:
                self.states.cut(sequence)

    def draft_room(self, sequence: Sequence) -> int | None:
        """Return how many tokens an answer may draft at most, where its states are to be kept soon; None for any."""
        return self.states.draft_room(sequence) if self.states.most else None

    def keep(self, sequences: Iterable[Sequence]) -> None:
        """Keep the states that a step has left."""
        for sequence in sequences if self.states.most else ():
            if sequence.cuts or not sequence.num_computed % self.block_size:
                self.learn((sequence,))
                self.states.settle(sequence)
                self.states.follow(sequence)

    def grow(self, sequence: Sequence, length: int, reserve: int = 0) -> bool:
        """Have room for tokens up to ``length``: more blocks, and copies of shared ones that it will write to.

        Args:
            sequence: Which one.
            length: Tokens in all.
            reserve: Blocks that must be free afterwards, where any are taken.

        Returns:
            Whether enough were free; where they were not, nothing is taken.
        """
        table, size = sequence.blocks, self.block_size
        if length <= len(table) * size and not self.num_shared:
            return True
        shared = self._shared(table, sequence.num_computed // size)
        missing = max(0, self.blocks_needed(length) - len(table))
        taken = missing + len(shared)
        if taken and taken + reserve > self.num_free:
            return False
        for i in shared:
            self._cache.copy_block(table[i], self._pool.next())  # which is taken where that succeeds
            self._pool.give_back(table[i])
            table[i] = self._pool.take()
        for _ in range(missing):
            table.append(self._pool.take())
        return True

    def fork(self, source: Sequence, target: Sequence, reserve: int) -> bool:
        """Let a sequence go on where another one stands: it shares all blocks, and has a copy of the states.

        Args:
            source: The model has seen all that its blocks are for.
            target: It holds nothing so far.
            reserve: Blocks that must be free afterwards.

        Returns:
            Whether there is room; where there is none, nothing is taken.
        """
        if not self.num_free_slots or self.num_free < reserve:
            return False
        target.slot = self.states.take()
        for block in source.blocks:
            self._pool.hold(block)
            target.blocks.append(block)
        target.keys.follow(source.keys)
        target.cached_tokens = source.cached_tokens
        self._cache.copy_states(source.slot, target.slot)
        return True

    def settle(self, sequence: Sequence, tokens: int) -> None:
        """Keep the first tokens of a sequence's draft, and take back the blocks behind its last token.

        Args:
            sequence: It had a draft in the last step.
            tokens: Of those that the step computed of it, how many stand.
        """
        if self._recurs:
            cast(TentativeCache, self._cache).commit(sequence.slot, tokens)
        self._shrink(sequence, len(sequence.tokens))

    def release(self, sequence: Sequence) -> None:
        """Take back all that a sequence holds, if anything.

        Raises:
            CacheError: A block or the slot is not held.
        """
        self.learn((sequence,))
        if self.on_release is not None:
            self.on_release(sequence)
        if sequence.num_computed:
            self._cache.truncate(sequence.slot, 0)
        self.states.settle(sequence)
        led = self.states.kept.reach(sequence.keys.first(len(sequence.blocks))) if self.states.most else None
        sequence.num_computed = 0
        self._shrink(sequence, 0, led)
        sequence.keys.known = 0
        self.states.give_back(sequence)

    def _shared(self, table: array[int], first: int) -> list[int]:
        """Where a table, from block ``first`` on, has blocks of several owners."""
        return [i for i in range(first, len(table)) if self.owners(table[i]) > 1] if self.num_shared else []

    def _find(self, sequence: Sequence) -> tuple[list[int], int]:
        """Return the known blocks that a sequence begins with, short of its first token that wants logits.

        Returns:
            Those that it can go on from, and how many there are, which may be more where states are needed.
        """
        found, size = list[int](), self.block_size
        if not len(self.known):
            return found, 0
        for i in range(sequence.keys.named(len(sequence.tokens) - sequence.outputs, size)):
            block = self.known.find(self.key(sequence, i))
            if block is None:
                break
            found.append(block)
        known = len(found)
        if self.states.most:
            last = self.states.kept.last(sequence.keys.first(known))
            del found[0 if last is None else len(last.chain) :]
        return found, known

    def _part(self, other: Sequence, sequence: Sequence, at: int, most: int) -> None:
        """Have another sequence keep states where one parts from it that waits for its blocks, from block ``at`` on."""
        if not self.states.most or sequence.awaited is other:
            return
        sequence.awaited = other
        most = min(most, other.keys.named(len(other.tokens), self.block_size))
        while at < most and self.key(sequence, at) == self.key(other, at):
            at += 1
        self.states.part(other, at)

    def _reuse(self, sequence: Sequence, found: list[int]) -> None:
        """Let a sequence begin with known blocks."""
        for block in found:
            self._pool.hold(block)
        sequence.blocks.extend(found)
        sequence.keys.known = len(found)
        sequence.num_computed = sequence.reused = count = len(found) * self.block_size
        if sequence.cached_tokens < 0:  # else it has given way, and finds what it has computed itself
            sequence.cached_tokens = count
            self.known.tokens += count

    def _shrink(self, sequence: Sequence, length: int, led: int | None = None) -> None:
        """Take back the blocks behind ``length`` tokens, the last first; known ones behind ``led`` blocks go first."""
        left = self.blocks_needed(length)
        while len(sequence.blocks) > left:
            block = sequence.blocks.pop()
            self._pool.give_back(block, first=led is not None and len(sequence.blocks) >= led)
