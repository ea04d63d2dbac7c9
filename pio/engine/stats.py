"""What a model has done and is doing, in numbers: no prompt and no answer is in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pio.engine.scheduler import Scheduler
    from pio.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the model was loaded, and what runs now.

    Attributes:
        running: Answers that the model works on.
        waiting: Answers that have not begun, or gave way to others, as of the last step; who came since is not in it.
        finished: Answers that came to their end: by themselves, at their length, or at their deadline.
        dropped: Answers that were cancelled, refused or failed.
        steps: How often the model ran.
        prompt_tokens: Tokens of prompts that it read; again, where a prompt had to give way.
        completion_tokens: Tokens of answers that it gave.
        encoded_media: Pictures and videos that it encoded.
        blocks: Blocks of the cache.
        free_blocks: Those that nobody holds.
        kept_blocks: Those of them that hold beginnings of prompts, for whoever begins alike.
        cached_tokens: Tokens of prompts that were found so, and not read.
        disk_tokens: Those of them that were found on disk.
        disk_segments: Files in the folder of ``prefix_cache_path``, as of the last one that was written.
        disk_bytes: Bytes of these files.
        disk_failures: Files that could not be written; behind the first of them nothing is.
        drafted_tokens: Tokens that steps computed on the chance that they come next.
        accepted_tokens: Those of them that came, and are in answers.
        draft_checks: Steps of answers with such tokens.
        kept_states: Moments of prompts and answers whose states of recurrent layers are kept, too.
    """

    running: int
    waiting: int
    finished: int
    dropped: int
    steps: int
    prompt_tokens: int
    completion_tokens: int
    encoded_media: int
    blocks: int
    free_blocks: int
    kept_blocks: int = 0
    cached_tokens: int = 0
    disk_tokens: int = 0
    disk_segments: int = 0
    disk_bytes: int = 0
    disk_failures: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    draft_checks: int = 0
    kept_states: int = 0


class Counters:
    """What only grows; the thread that runs the model counts, and whoever asks reads whole numbers.

    Attributes:
        finished: As in ``Stats``, and so are the others.
    """

    __slots__ = ("completion_tokens", "dropped", "finished", "prompt_tokens", "steps")

    def __init__(self) -> None:
        self.finished = self.dropped = self.steps = self.prompt_tokens = self.completion_tokens = 0

    def step(self, plan: Iterable[Sequence]) -> None:
        """Count a step that the model has done; answers that go on from the prompt of another are not in it."""
        self.steps += 1
        for sequence in plan:
            self.prompt_tokens += max(0, min(sequence.scheduled, sequence.prompt_length - sequence.num_computed))

    def give(self, plan: Iterable[Sequence]) -> None:
        """Count the tokens of answers that a step has given; before any of them is removed."""
        given = (s for s in plan if s.rows and s.pending and not s.consumer.dead)  # logits alone add no token
        self.completion_tokens += sum(s.scheduled if s.draft else 1 for s in given)

    def end(self, *, dropped: bool) -> None:
        """Count the end of an answer."""
        self.dropped += dropped
        self.finished += not dropped

    def stats(self, scheduler: Scheduler, encoded_media: int) -> Stats:
        """Return all numbers as they are now."""
        stored = scheduler.stored
        speculation = scheduler.speculation
        return Stats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            finished=self.finished,
            dropped=self.dropped,
            steps=self.steps,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            encoded_media=encoded_media,
            blocks=scheduler.cache.num_blocks,
            free_blocks=scheduler.cache.num_free,
            kept_blocks=scheduler.cache.known.num_kept,
            cached_tokens=scheduler.cache.known.tokens,
            disk_tokens=0 if stored is None else stored.tokens,
            disk_segments=0 if stored is None else stored.store.num_segments,
            disk_bytes=0 if stored is None else stored.store.disk_bytes,
            disk_failures=0 if stored is None else stored.store.failures,
            drafted_tokens=0 if speculation is None else speculation.drafted,
            accepted_tokens=0 if speculation is None else speculation.accepted,
            draft_checks=0 if speculation is None else speculation.checks,
            kept_states=len(scheduler.cache.states.kept),
        )
