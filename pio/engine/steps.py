"""What the thread of a model does between looking for new requests: steps, and the end of those that end."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from pio.engine import request_log
from pio.engine.deadlines import Deadlines
from pio.engine.media_encoder import MediaEncoder
from pio.engine.runner import Runner, deliverable
from pio.engine.scheduler import Scheduler
from pio.engine.sequence import Sequence, Status
from pio.engine.stats import Counters, Stats
from pio.engine.stored_prefixes import StoredPrefixes
from pio.errors import CancelledError
from pio.threads import green_threads


class Steps:
    """Runs what is scheduled, step by step, and counts it; for the one thread that runs the model.

    Attributes:
        scheduler: Decides what a step computes.
    """

    def __init__(self, scheduler: Scheduler, runner: Runner, encoder: MediaEncoder | None = None) -> None:
        self.scheduler = scheduler
        self._runner = runner
        self._encoder = encoder
        if encoder is not None:
            scheduler.want_media = encoder.add
        self._deadlines = Deadlines(scheduler.prefill_chunk)
        self._counters = Counters()

    @property
    def busy(self) -> bool:
        """Whether any sequence is not finished."""
        return self.scheduler.busy

    @property
    def everything(self) -> list[Sequence]:
        """All sequences that are not finished."""
        return [*self.scheduler.running, *self.scheduler.waiting]

    def stats(self) -> Stats:
        """Count what there is now; in any thread."""
        return self._counters.stats(self.scheduler, 0 if self._encoder is None else self._encoder.encoded)

    def arrive(self, sequences: list[Sequence]) -> None:
        """Queue the sequences of a request; refuse those whose time cannot be enough."""
        request_log.arrived(sequences)
        for sequence in sequences:
            if not sequence.consumer.dead:
                if self._encoder is not None and sequence.media:
                    self._encoder.add(sequence, self.scheduler.found(sequence))
                self.scheduler.add(sequence)
                refused = self._deadlines.watch(sequence, self.scheduler.unread)
                if refused is not None:
                    self._fail(refused, [sequence])

    def drop(self, sequences: Iterable[Sequence]) -> None:
        """Give back what those of a request that was cancelled or failed hold of the cache."""
        for sequence in sequences:
            if sequence.status is not Status.FINISHED:
                request_log.dropped(sequence)
                self._remove(sequence)
                self._counters.end(dropped=True)

    def expire(self) -> None:
        """End those whose time is over, with what there is of them."""
        for sequence in self._deadlines.over():
            try:
                sequence.consumer.expire(sequence)
            except BaseException as error:  # a tokenizer's Rust panic is no Exception
                self._fail(error, [sequence])
            else:
                self._remove(sequence)
                self._counters.end(dropped=False)
                sequence.consumer.finish()

    def step(self) -> None:
        """Encode or read a piece, schedule, run, hand out; an error ends the requests that took part, and no others."""
        if self._encoder is not None and self._encoder.busy:
            self._encode(self._encoder)
        plan, finished, stored = None, list[Sequence](), self.scheduler.stored
        try:
            if stored is not None and stored.reading:
                self._read(stored)
            plan = list(self.scheduler.schedule())
            if not plan:  # all wait for their pictures, or for what is read from disk
                return
            begun, tokens = perf_counter(), sum(sequence.scheduled for sequence in plan)
            logits = self._runner.forward(plan)
            self._counters.step(plan)
            plan += self.scheduler.share_prompt()
            self._runner.consume(plan, logits, finished)
            seconds = self._runner.computed - begun
            self._deadlines.note(tokens, seconds)
            self._counters.give(plan)
            self.scheduler.settle(seconds, self._runner.wait)
            self.scheduler.cache.keep(plan)
            self._finish(finished)
        except BaseException as error:  # whatever it is, callers wait and the next request must run
            others = self.everything if plan is None else plan
            try:
                self._fail(error, [sequence for sequence in others if sequence not in finished])
                self._finish(finished)
            finally:
                _hand_over(finished)  # they have all that was asked for, whatever happened behind that
        self.scheduler.plan.clear()  # the last requests must not live until the next ones come

    def _finish(self, finished: list[Sequence]) -> None:
        """Take back what sequences hold that have come to their end, and hand over their results."""
        for sequence in finished:
            if sequence.status is not Status.FINISHED:
                if sequence.consumer.dead:
                    request_log.dropped(sequence)
                self._remove(sequence)
                self._counters.end(dropped=sequence.consumer.dead)
        _hand_over(finished)  # last, so that whoever has an answer finds it counted and its room free

    def end(self, error: BaseException, *, closed: bool) -> None:
        """Fail all sequences, whatever state an error left them in; write what was computed where the model closes."""
        request_log.failed(error, ())
        for sequence in self.everything:
            sequence.consumer.fail(error)
            request_log.dropped(sequence)
        if (stored := self.scheduler.stored) is not None:
            stored.finish(self.scheduler.running) if closed else stored.clear()
        self.scheduler.reset()
        if self._encoder is not None:
            self._encoder.clear()
        self._deadlines.clear()

    def _remove(self, sequence: Sequence) -> None:
        self._deadlines.forget(sequence)
        if self._encoder is not None:
            self._encoder.forget(sequence)
        self.scheduler.remove(sequence)

    def _encode(self, encoder: MediaEncoder) -> None:
        """Do a piece of what pictures take; an error ends the requests that wait for them, and no others."""
        try:
            encoder.advance()
        except BaseException as error:
            self._fail(error, encoder.fail())

    def _read(self, stored: StoredPrefixes) -> None:
        """Read a piece of what somebody begins with; an error ends that request, and no others."""
        sequence = stored.first
        try:
            stored.advance()
        except BaseException as error:
            self._fail(error, [sequence])

    def _fail(self, error: BaseException, sequences: Iterable[Sequence]) -> None:
        """End what an error concerns; raise it again where it was meant for this thread."""
        heard, sequences = told(error), list(sequences)
        request_log.failed(heard, sequences)
        for sequence in sequences:
            sequence.consumer.fail(heard)
            self.drop((sequence,))
        if heard is not error and isinstance(error, KeyboardInterrupt | SystemExit):
            raise error


def _hand_over(finished: list[Sequence]) -> None:
    """Give those who wait their results, each once."""
    while finished:
        finished.pop(0).consumer.finish()


def told(error: BaseException) -> BaseException:
    """What callers hear of an error in the loop."""
    if not isinstance(error, KeyboardInterrupt | SystemExit):
        return deliverable(error)
    if green_threads():  # a signal handler's: it was meant for one who waits, and came while this coroutine ran
        return error.with_traceback(None)
    return CancelledError(f"the thread that ran the request was ended by {type(error).__name__}; send it again")
