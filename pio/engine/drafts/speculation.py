"""Speculation: steps compute tokens that are likely to come next, and answers take those that do."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from pio.thread_log import ThreadLog

if TYPE_CHECKING:
    from pio.engine.cache_manager import CacheManager
    from pio.engine.drafts.drafter import Draft, Drafter
    from pio.engine.drafts.gate import Gate
    from pio.engine.sequence import Sequence

SHARE: Final = 20  # of the cache's bytes: earlier answers take at most a twentieth, and so do running sequences
DRAFTS: Final = "texts that drafts are found in (none with speculation='off')"
_log = ThreadLog("pio.engine")


class Speculation:
    """Puts drafts into steps, and clears up behind them.

    A draft changes no text: the tokens of its rows are chosen one after another as they would be alone, each only where
    all before it came as drafted. So nothing here decides but how many rows there are.

    Attributes:
        drafter: Proposes tokens; None where nothing is to be drafted.
        gate: Decides how many of them are computed.
        most: Tokens of a draft.
        drafted: Tokens that steps computed without knowing that they come.
        accepted: Those of them that came.
        checks: Steps of an answer with a draft.
        nbytes: Bytes that the drafter may come to take.
    """

    def __init__(self, drafter: Drafter, gate: Gate, most: int) -> None:
        """Begin without any draft.

        Args:
            drafter: Who proposes.
            gate: Who decides how much of it is computed.
            most: Tokens of a draft.
        """
        self.drafter: Drafter | None = drafter
        self.nbytes = drafter.nbytes
        self.drafted = self.accepted = self.checks = 0
        self.gate = gate
        self.most = most
        # of the step: tokens of prompts, sequences that decode, and those of them that have a draft
        self._prompts = self._decoding = 0
        self._drafted: list[Sequence] = []

    def schedule(self, plan: list[Sequence], cache: CacheManager, *, tokens: int, rows: int) -> None:
        """Add drafts to a step.

        Args:
            plan: What it computes, so far without drafts.
            cache: Has blocks for that.
            tokens: How many more it may compute.
            rows: How many more rows of logits it may have.
        """
        drafter, most = self.drafter, min(tokens, rows)
        self._prompts = self._decoding = 0
        self._drafted.clear()
        wanted: list[tuple[Sequence, int]] = []
        for sequence in plan:
            if not sequence.decodes:
                self._prompts += sequence.scheduled
                continue
            self._decoding += 1
            if len(sequence.tokens) > sequence.prompt_length:
                room = min(self.most, sequence.consumer.room(sequence) - 1)  # the last row gives one without a draft
                if (due := cache.draft_room(sequence)) is not None:
                    room = min(room, due)
                if room > 0:
                    wanted.append((sequence, room))
        if drafter is None or not wanted:
            return
        drafts: list[tuple[Sequence, Draft]] = []
        try:
            proposed = drafter.propose(wanted)
        except Exception as error:
            self._give_up(error)
            return
        for (sequence, _), draft in zip(wanted, proposed, strict=True):
            if draft is not None:
                if sequence.speculation == "no_match":
                    sequence.speculation = "not_worth_it"
                if draft.tokens:
                    drafts.append((sequence, draft))
        if drafts and most > 0:
            self._add(drafts, cache, most)

    def _add(self, drafts: list[tuple[Sequence, Draft]], cache: CacheManager, most: int) -> None:
        most = min(most, cache.tentative_tokens - len(drafts))  # of which a sequence with a draft has one more
        counts = self.gate.choose(self._decoding, self._prompts, [draft.survivals for _, draft in drafts], most)
        for (sequence, draft), count in zip(drafts, counts, strict=True):
            length = len(sequence.tokens)
            # a block in reserve for each that decodes: a draft takes none that another one is about to need
            if count and not cache.grow(sequence, length + count, reserve=self._decoding):
                count = len(sequence.blocks) * cache.block_size - length  # what the last block has room for
            if count:
                sequence.plan_draft(draft.tokens[:count])
                sequence.speculation = "on"
                self._drafted.append(sequence)

    def settle(self, cache: CacheManager, seconds: float, wait: Callable[[], object]) -> None:
        """Note what became of the step's drafts, and give back the blocks that only they needed.

        Args:
            cache: As in ``schedule``; the step's sequences still hold their blocks.
            seconds: The model took.
            wait: Waits until what was asked of its device is done.
        """
        began, tokens = perf_counter(), self._decoding
        given = tokens
        for sequence in self._drafted:
            count = len(sequence.draft)
            tokens += count
            given += sequence.scheduled - 1
            self.checks += 1
            self.drafted += count
            self.accepted += max(0, sequence.scheduled - (not sequence.confirmed))
            sequence.drop_draft()
            cache.settle(sequence, sequence.scheduled)
        if self._drafted:
            wait()  # what a GPU commits belongs to this step, and would count as the next one's
            seconds += perf_counter() - began
            self._drafted.clear()  # they must not live until the next step
        if self._decoding and not self._prompts:
            self.gate.note(self._decoding, tokens, given, seconds)

    def end(self, sequence: Sequence) -> None:
        """Let go of a sequence that gets no more tokens, maybe in the middle of a step that failed."""
        if sequence in self._drafted:
            self._drafted.remove(sequence)
        if self.drafter is not None:
            try:
                self.drafter.end(sequence)
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Draft nothing more: no answer needs drafts, so none ends by an error of theirs."""
        self.drafter = None  # with all that it holds
        _log.warning("nothing more is drafted, for it failed: %s: %s", type(error).__name__, error)

    def clear(self) -> None:
        """Let go of all sequences."""
        self._drafted.clear()
        if self.drafter is not None:
            self.drafter.clear()
