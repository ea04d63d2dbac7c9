"""The loop of the one thread that runs a model."""

from __future__ import annotations

import queue

from pio.engine.runner import Runner, deliverable
from pio.engine.scheduler import Scheduler
from pio.engine.sequence import Sequence
from pio.errors import CancelledError, PioError


class Worker:
    """Takes sequences from an inbox and steps until all are done; sleeps while there are none.

    Attributes:
        inbox: Groups of sequences to start, or None to stop. A SimpleQueue, for a garbage collector may put None there
            at any moment, in any thread, and its ``put`` is the one that allows that.
    """

    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self.inbox: queue.SimpleQueue[list[Sequence] | None] = queue.SimpleQueue()
        self._scheduler = scheduler
        self._runner = runner

    def run(self) -> None:
        """Serve until told to stop; then whatever is left gets a CancelledError."""
        while self._receive():
            self._drop_dead()
            if self._scheduler.busy:
                self._step()
        self._fail([*self._scheduler.running, *self._scheduler.waiting], _closed())
        while not self.inbox.empty():
            for sequence in self.inbox.get() or ():
                sequence.consumer.fail(_closed())

    def _receive(self) -> bool:
        """Queue what has come in, waiting for it only where there is nothing else to do; False to stop."""
        wait = not self._scheduler.busy
        while wait or not self.inbox.empty():
            arrived = self.inbox.get()
            if arrived is None:
                return False
            for sequence in arrived:
                self._scheduler.add(sequence)
            wait = False
        return True

    def _drop_dead(self) -> None:
        """Give the blocks of cancelled and failed requests back."""
        for sequence in [s for s in (*self._scheduler.running, *self._scheduler.waiting) if s.consumer.dead]:
            self._scheduler.remove(sequence)

    def _step(self) -> None:
        """Schedule, run, hand out; an error ends the requests that took part, and no others."""
        affected = [*self._scheduler.running, *self._scheduler.waiting]
        try:
            affected = list(self._scheduler.schedule())
            for sequence in self._runner.consume(affected, self._runner.forward(affected)):
                self._scheduler.remove(sequence)
        except BaseException as error:  # whatever it is, callers wait and the next request must run
            self._fail(affected, deliverable(error))
        self._scheduler.plan.clear()  # the last requests must not live until the next ones come

    def _fail(self, sequences: list[Sequence], error: PioError) -> None:
        for sequence in sequences:
            sequence.consumer.fail(error)
            self._scheduler.remove(sequence)


def _closed() -> CancelledError:
    return CancelledError("the model was closed before the request finished")
