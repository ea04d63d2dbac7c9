"""Encodes the pictures of waiting prompts, each once, in short pieces between the steps of running answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from pio.device import Device
from pio.engine.prompt_media import REMEDY
from pio.engine.sequence import Sequence as TokenSequence
from pio.errors import ConfigError, OutOfMemoryError
from pio.memory.budget import MemoryBudget
from pio.memory.fit import require_free
from pio.memory.sizes import format_bytes
from pio.tensor import Tensor
from pio.text.encoded_prompt import PlacedMedium

Embeddings: TypeAlias = tuple[Tensor, tuple[Tensor, ...]]  # of a medium's tokens, and what is added behind layers
TOGETHER = 1 << 26  # bytes of work that are worth sharing a run: small pictures fill the tiles of a large one together


class Encoder(Protocol):
    """What the engine needs of a model's tower (``pio.layers.encoder``)."""

    def encode(self, media: Sequence[Any], /) -> Generator[None, None, list[Embeddings]]:
        """Encode media side by side, a short piece of the work between any two yields."""
        ...

    def working_bytes(self, media: Sequence[Any], /) -> int:
        """Return the bytes that encoding media together takes until it is done."""
        ...

    def embeddings_bytes(self, medium: Any, /) -> int:
        """Return the bytes of what encoding a medium gives."""
        ...

    def tokens(self, medium: Any, /) -> int:
        """Return how many rows of embeddings encoding a medium gives."""
        ...


class _Wanted(NamedTuple):
    """A medium that is to be encoded, and who waits for it."""

    placed: PlacedMedium
    by: dict[TokenSequence, None]


class MediaEncoder:
    """Encodes media in the order in which they were asked for, and keeps what came of the last ones.

    Attributes:
        kept_bytes: Bytes of the embeddings that are kept.
        encoded: How many media were encoded so far, those that were found among the kept ones not counted.
    """

    def __init__(
        self, encoder: Encoder, keep: int, budget: MemoryBudget | None = None, device: Device | None = None
    ) -> None:
        """Begin with nothing.

        Args:
            encoder: The model's.
            keep: Bytes of embeddings that are kept for prompts with the same media; at most half of what the budget has
                left, so that there is room for what others count against it.
            budget: What the encoder counts its memory against.
            device: Where it takes that; the CPU if None.
        """
        self._encoder, self._device = encoder, device
        self._keep = keep if budget is None else min(keep, budget.available // 2)
        self._budget = budget
        self._kept: OrderedDict[bytes, Embeddings] = OrderedDict()
        self._wanted: OrderedDict[bytes, _Wanted] = OrderedDict()
        self._running: Generator[None, None, list[Embeddings]] | None = None
        self._in_work: list[bytes] = []
        self._alone: set[bytes] = set()  # media that did not fit beside others
        self.kept_bytes = 0  # of the embeddings that are kept; a number, for others look at it
        self.encoded = 0

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a medium."""
        return bool(self._wanted)

    def check(self, media: Sequence[PlacedMedium]) -> None:
        """Refuse media of a prompt that can never be encoded; called by whoever submits it.

        Raises:
            ConfigError: One has other than the tokens that are said to stand for it.
            OutOfMemoryError: They take more than the memory limit or the machine leaves; the message says how much.
        """
        for index, placed in enumerate(media):
            if placed.tokens != self._encoder.tokens(placed.medium):
                raise ConfigError(
                    f"prompt: media[{index}] has {self._encoder.tokens(placed.medium)} tokens, found {placed.tokens}; "
                    f"{REMEDY}"
                )
        new = {placed.key: placed.medium for placed in media if placed.key not in self._kept}
        if not new:
            return
        working = max(self._encoder.working_bytes([medium]) for medium in new.values())
        needed = working + sum(map(self._encoder.embeddings_bytes, new.values()))
        tokens, remedy = sum(placed.tokens for placed in media), "give fewer or smaller pictures, or fewer max_pixels"
        on_gpu = self._device is not None and self._device.stream is not None
        spare = self.kept_bytes if on_gpu else 0  # a machine says too late that it has no memory for them
        require_free(needed, f"encoding pictures of {tokens} tokens takes", remedy, self._device, spare)
        if self._budget is None:
            return
        available = self._budget.available + self.kept_bytes
        if needed > available:
            raise OutOfMemoryError(
                f"encoding pictures of {tokens} tokens takes {format_bytes(needed)}, and of the memory limit of "
                f"{format_bytes(self._budget.limit)}, {format_bytes(available)} are left: {remedy}, "
                "or raise memory_limit"
            )

    def add(self, sequence: TokenSequence, found: int = 0) -> None:
        """Take in a sequence that waits for its media; what is kept of them it gets at once.

        Media that it does not need are left to it: where it is to compute some of their tokens after all, because the
        cache has lost them, it is to be added again before it runs.

        Args:
            sequence: It waits for none so far.
            found: So many of its first tokens need not be computed.
        """
        needed = {placed.key for placed in sequence.media if placed.end > found}
        left: list[PlacedMedium] = []
        for placed in sequence.media:
            kept = self._kept.get(placed.key)
            if kept is not None:
                self._kept.move_to_end(placed.key)
                _give(sequence, placed, kept)
                continue
            left.append(placed)
            if placed.key in needed:
                sequence.missing += 1
                self._wanted.setdefault(placed.key, _Wanted(placed, {})).by[sequence] = None
        sequence.media = tuple(left)  # pixels of others are not needed any more

    def forget(self, sequence: TokenSequence) -> None:
        """Let go of a sequence; what nobody else waits for is not encoded, and is stopped where it is."""
        for placed in sequence.media if sequence.missing else ():
            wanted = self._wanted.get(placed.key)
            if wanted is not None:
                wanted.by.pop(sequence, None)
                if not wanted.by:
                    del self._wanted[placed.key]
        if self._running is not None and not any(key in self._wanted for key in self._in_work):
            self._stop()

    def advance(self) -> None:
        """Do a short piece of the work; sequences whose last medium is done may run then.

        Raises:
            OutOfMemoryError: The medium in work does not fit, also where none is kept; ``fail`` says whose it is.
        """
        try:
            if self._running is None:
                self._begin()
            assert self._running is not None
            next(self._running)
        except StopIteration as done:
            keys, self._running, self._in_work = self._in_work, None, []
            self._finish(keys, done.value)
        except OutOfMemoryError:
            if len(self._in_work) > 1:
                self._alone.update(self._in_work)  # one after the other they may fit
            elif self._kept:
                while self._kept:
                    self._drop()
            else:
                raise
            self._stop()

    def fail(self) -> list[TokenSequence]:
        """Give up what is in work; return the sequences that wait for it, which can never run."""
        keys = self._in_work or [*self._wanted][:1]
        self._stop()
        failed = {sequence: None for key in keys if key in self._wanted for sequence in self._wanted[key].by}
        for sequence in failed:
            self.forget(sequence)
        return [*failed]

    def clear(self) -> None:
        """Let go of everything."""
        self._stop()
        self._wanted.clear()
        self._kept.clear()
        self.kept_bytes = 0

    def _begin(self) -> None:
        """Start with the first medium, and those behind it that are small enough to share its run."""
        keys, media = list[bytes](), list[Any]()
        for key, wanted in self._wanted.items():
            more = [*media, wanted.placed.medium]
            if media and (key in self._alone or not self._share(more)):
                break
            keys.append(key)
            media = more
            if key in self._alone:
                break
        self._in_work = keys  # first, so that it is known whose they are where this fails
        self._make_room(media)
        self._running = self._encoder.encode(media)

    def _share(self, media: Sequence[Any]) -> bool:
        """Whether a run of so many media is small, and there is memory for it."""
        if self._encoder.working_bytes(media) > TOGETHER:
            return False
        return self._budget is None or self._needed(media) <= self._budget.available + self.kept_bytes

    def _needed(self, media: Sequence[Any]) -> int:
        """Return the bytes that encoding media together takes, and what it gives."""
        return self._encoder.working_bytes(media) + sum(map(self._encoder.embeddings_bytes, media))

    def _make_room(self, media: Sequence[Any]) -> None:
        """Drop what is kept and used least, as far as the memory limit asks for it."""
        if self._budget is None:
            return
        needed = self._needed(media)
        while self._kept and self._budget.available < needed:
            self._drop()

    def _finish(self, keys: Sequence[bytes], found: Sequence[Embeddings]) -> None:
        for key, embeddings in zip(keys, found, strict=True):
            self.encoded += 1
            self._alone.discard(key)
            wanted = self._wanted.pop(key, None)
            for sequence in wanted.by if wanted else ():
                for placed in sequence.media:  # the same picture may stand in a prompt twice
                    if placed.key == key:
                        sequence.missing -= 1
                        _give(sequence, placed, embeddings)
                sequence.media = tuple(placed for placed in sequence.media if placed.key != key)
            self._kept[key] = embeddings
            self.kept_bytes += _bytes_of(embeddings)
        while self.kept_bytes > self._keep:
            self._drop()

    def _drop(self) -> None:
        _, embeddings = self._kept.popitem(last=False)
        self.kept_bytes -= _bytes_of(embeddings)

    def _stop(self) -> None:
        running, self._running, self._in_work = self._running, None, []
        if running is not None:
            running.close()


def _give(sequence: TokenSequence, placed: PlacedMedium, found: Embeddings) -> None:
    sequence.embeddings += tuple(placed.embeddings(*found))


def _bytes_of(found: Embeddings) -> int:
    rows, additions = found
    return rows.nbytes + sum(level.nbytes for level in additions)
