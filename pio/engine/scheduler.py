"""Decides which tokens of which sequences the next step computes."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pio.engine import request_log
from pio.engine.cache_manager import CacheManager
from pio.engine.drafts.speculation import Speculation
from pio.engine.sequence import Sequence, Status
from pio.engine.waiting_line import WaitingLine
from pio.errors import ConfigError

if TYPE_CHECKING:
    from pio.engine.stored_prefixes import StoredPrefixes

PROMPTS: Final = 4  # that are computed side by side although the first would fill the step: a short one waits for none
FIRST_SHARE: Final = 4  # the oldest prompt has a quarter of what prompts take of a step, however many short ones come


class Scheduler:
    """Continuous batching over a fixed pool of cache blocks.

    Every step decodes one token of each sequence that has its prompt behind it, then spends what is left on prompts,
    in chunks: those with least left first, so that a short one soon passes a long one, but never without a share for
    the oldest. A prompt starts when its blocks are free, in the order of arrival and of priority; no later one
    overtakes it there unless its pictures are still being encoded, or what it begins with is being computed for another
    one. A decoding sequence that finds no free block takes those of the last one in that order, which starts again
    later; its tokens stay the same, for a row's bits do not depend on how it was chunked. Several answers to one prompt
    wait for the first of them to compute it, and go on from there.

    Attributes:
        waiting: Sequences not begun, or put back.
        running: Sequences with blocks, in the same order.
        plan: What ``schedule`` chose last; each sequence's ``scheduled`` says how many tokens.
        prefill_chunk: Prompt tokens of a step, over all sequences.
        stored: What of the cache is on disk too; None where nothing is.
        speculation: Adds tokens that are likely to come; None where nothing is drafted.
        want_media: Called with a sequence whose pictures were not encoded, and of which the cache has so many tokens.
    """

    def __init__(
        self,
        cache: CacheManager,
        *,
        max_tokens: int,
        max_outputs: int,
        prefill_chunk: int,
        stored: StoredPrefixes | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        """Set the limits of a step.

        Args:
            cache: What sequences are kept in; it has a slot for each that runs.
            max_tokens: Tokens of a step.
            max_outputs: Rows of logits of a step.
            prefill_chunk: Prompt tokens of a step, over all sequences.
            stored: What of the cache is on disk too.
            speculation: Adds tokens that are likely to come; None where nothing is drafted.

        Raises:
            ConfigError: The limits contradict each other.
        """
        max_sequences = cache.num_slots
        for name, value, least in (
            ("max_batch_sequences", max_sequences, 1),
            ("prefill_chunk", prefill_chunk, 1),
            ("max_batch_tokens", max_tokens, max_sequences),
            ("max_batch_outputs", max_outputs, max_sequences),
        ):
            if value < least:
                raise ConfigError(f"{name}={value} is too small: expected at least {least}, one for each sequence")
        self.cache = cache
        self.stored = stored
        self.waiting = WaitingLine()
        self.running: list[Sequence] = []
        self.plan: list[Sequence] = []
        self._max_tokens = max_tokens
        self._max_outputs = max_outputs
        self.prefill_chunk = prefill_chunk
        self.speculation = speculation
        self.want_media: Callable[[Sequence, int], object] = lambda sequence, found: None

    @property
    def busy(self) -> bool:
        """Whether any sequence is not finished."""
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind all others of its priority."""
        if self.speculation is not None:
            sequence.speculation = "no_match"
        self.waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and take back what it holds of the cache."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
        elif sequence.status is Status.WAITING:
            self.waiting.remove(sequence)  # one that was cancelled on its way here never was in it
        self._release(sequence)
        sequence.status = Status.FINISHED
        if self.speculation is not None:
            self.speculation.end(sequence)

    def unread(self, sequence: Sequence) -> int:
        """Return how many tokens of a sequence that waits the model would have to read, as things stand now."""
        self.cache.learn(self.running)  # it may begin as one of them
        tokens = self.cache.unread(sequence)
        return tokens if self.stored is None else self.stored.unread(sequence, tokens)

    def found(self, sequence: Sequence) -> int:
        """Return how many tokens of a sequence that waits are in the cache now; what is on disk alone is not."""
        self.cache.learn(self.running)
        return len(sequence.tokens) - self.cache.unread(sequence)

    def reset(self) -> None:
        """Forget all sequences, in whatever state an error left them, and have the whole cache back."""
        for sequence in (*self.running, *self.waiting):
            sequence.status = Status.FINISHED
        self.running.clear()
        self.waiting.clear()
        self.plan.clear()
        self.cache.reset()
        if self.speculation is not None:
            self.speculation.clear()

    def schedule(self) -> list[Sequence]:
        """Choose the next step; empty only where all wait for their pictures, or for what is read from disk."""
        self.plan.clear()
        self._schedule_decodes()
        if len(self.plan) < len(self.running) or self.waiting:
            self._schedule_prompts()
            self.cache.cut(self.plan)
        if self.speculation is not None:  # last, with what others leave
            tokens = self._max_tokens - sum(sequence.scheduled for sequence in self.plan)
            rows = self._max_outputs - sum(sequence.rows for sequence in self.plan)
            self.speculation.schedule(self.plan, self.cache, tokens=tokens, rows=rows)
        return self.plan

    def settle(self, seconds: float, wait: Callable[[], object]) -> None:
        """Clear up behind a step's drafts: answers have their tokens, and none is removed yet.

        Args:
            seconds: The model took.
            wait: Waits until what was asked of its device is done.
        """
        if self.speculation is not None:
            self.speculation.settle(self.cache, seconds, wait)

    def _schedule_decodes(self) -> None:
        i = 0
        while i < len(self.running):
            sequence = self.running[i]
            if sequence.decodes and self._grow(sequence):
                sequence.plan(1)
                self.plan.append(sequence)
            i += 1

    def _schedule_prompts(self) -> None:
        budget = min(self._max_tokens - len(self.plan), self.prefill_chunk)
        # every running answer keeps its row of logits, so that scoring a long prompt holds none of them up
        outputs = self._max_outputs - sum(s.outputs == 1 for s in self.running)
        prompts = [sequence for sequence in self.running if not sequence.decodes and not sequence.loading]
        tokens = sum(sequence.pending for sequence in prompts)
        while (tokens < budget or len(prompts) < PROMPTS) and outputs > 0 and (newest := self._admit()) is not None:
            if not newest.loading:
                prompts.append(newest)
                tokens += newest.pending
                outputs -= newest.outputs == 1
        if not prompts:
            return
        first, *others = sorted(prompts, key=lambda s: (s.pending, s.order))
        oldest = min(prompts, key=order)
        if oldest is not first:  # its share comes before theirs, for they may take all rows of logits
            others = [first, *(sequence for sequence in others if sequence is not oldest)]
            share = max(budget // FIRST_SHARE, budget - sum(s.pending for s in others), min(budget, 1))
            left, outputs = self._schedule_prompt(oldest, share, outputs)
            budget -= share - left
        else:
            budget, outputs = self._schedule_prompt(first, budget, outputs)
        for sequence in others:
            budget, outputs = self._schedule_prompt(sequence, budget, outputs)

    def _grow(self, sequence: Sequence) -> bool:
        """Make room for one more token, at the expense of younger sequences; False where it had to give way itself."""
        while not self.cache.grow(sequence, len(sequence.tokens)):
            last = self.running.pop()  # not in the plan: those before it come first
            self._release(last)
            last.status = Status.WAITING
            self.waiting.put_back(last)
            request_log.gave_way(last)
            if last is sequence:
                return False
        return True

    def _release(self, sequence: Sequence) -> None:
        if self.stored is not None:
            self.stored.forget(sequence)
        self.cache.release(sequence)

    def _schedule_prompt(self, sequence: Sequence, budget: int, outputs: int) -> tuple[int, int]:
        """Plan a chunk of a prompt; return what is left of the budget of tokens and of output rows."""
        count = min(sequence.pending, budget)
        sequence.plan(count)
        if sequence.outputs > 1:  # else its row is kept already
            count -= max(0, sequence.rows - outputs)
            sequence.plan(count)
            outputs -= sequence.rows
        if count > 0:
            self.plan.append(sequence)
        return budget - count, outputs

    def _admit(self) -> Sequence | None:
        """Start the sequence whose turn it is, and return it, if it fits beside those that run."""
        sequence = next((sequence for sequence in self.waiting if not self._passed(sequence)), None)
        if sequence is None:
            return None
        self.cache.learn(self.running)  # the newcomer may begin as one of them
        first = sequence.cached_tokens < 0  # else it has given way, and finds what it has computed itself
        # a block in reserve for each running sequence, else the newcomer would soon be put back
        if not self.cache.admit(sequence, reserve=len(self.running)):
            return None
        self._start(sequence)
        if self.stored is not None:
            self.stored.begin(sequence, counted=first)
        return sequence

    def _passed(self, sequence: Sequence) -> bool:
        """Whether others go first: its pictures are not encoded, or its beginning is about to be computed."""
        if sequence.media and not sequence.missing:  # they were in the cache when it came
            self.want_media(sequence, self.found(sequence))
        if sequence.missing or self._awaited(sequence) is not None:
            return True
        # not by one behind it, which may be held up by whoever comes before that one
        return self.cache.awaits(sequence, (other for other in self.running if other.order <= sequence.order))

    def _awaited(self, sequence: Sequence) -> Sequence | None:
        """Return who is about to compute the prompt that a sequence shares; None where it has to do so itself."""
        if sequence.family is None:
            return None
        return next((other for other in reversed(self.running) if sequence.awaits(other)), None)

    def _start(self, sequence: Sequence) -> None:
        self.waiting.remove(sequence)
        insort(self.running, sequence, key=order)
        sequence.status = Status.RUNNING

    def share_prompt(self) -> list[Sequence]:
        """Let those go on that waited for a prompt which the model has just seen; their logits are the same row.

        Returns:
            Sequences to be treated as if they had been in the plan, too.
        """
        started: list[Sequence] = []
        seen = {s.family for s in self.plan if s.family is not None and s.rows and len(s.tokens) == s.prompt_length}
        for sequence in [s for s in self.waiting if s.family in seen] if seen else ():
            first = self._awaited(sequence)
            if first is None or not first.rows or sequence.consumer.dead:
                continue
            # a block for it and a block in reserve for each running sequence; else it computes the prompt for itself
            if not self.cache.fork(first, sequence, reserve=len(self.running) + 1):
                break
            self._start(sequence)
            sequence.consumer.begin()
            sequence.num_computed, sequence.scheduled = first.num_computed, first.scheduled
            sequence.row, sequence.rows = first.row, first.rows
            started.append(sequence)
        return started


def order(sequence: Sequence) -> float:
    """When a sequence came, for who goes first."""
    return sequence.order
