"""Recorded steps: operations that run again in one call, on memory that the recording holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from pio.errors import PioError
from pio.kernels import jobs
from pio.memory import step

Explain = Callable[[int], PioError]

__all__ = ["Program", "checked_again", "recording"]


class Program:
    """A recorded step: its operations run again in one call, on the same memory, whatever that holds by then.

    It keeps all memory that the operations read and write. What runs between them in Python is not part of it.
    """

    def __init__(self, recorded: jobs.Program) -> None:
        self._jobs = recorded
        self._checks: dict[int, Explain] = {}
        self._held: tuple[object, ...] = ()

    def run(self) -> None:
        """Run the operations again, in order.

        Raises:
            TensorError: Numbers that an operation reads as indices are out of range by now; it and what comes behind
                it did not run.
            RecordingError: This thread records a step.
        """
        step.refuse("runs a recorded step", "steps do not nest; run it before or behind the one that is recorded")
        done, found = self._jobs.run()
        if found:
            raise self._checks[done](found - 1)

    def add_check(self, job: Callable[..., None], values: tuple[int, ...], explain: Explain) -> None:
        """Record a check; ``job`` writes i + 1 to its first parameter where it finds something wrong at i, else 0."""
        self._checks[len(self._jobs)] = explain
        job(self._jobs.stop, *values, 1)

    def finish(self, held: tuple[object, ...]) -> None:
        """End the recording."""
        self._held = held
        self._jobs.pack()


class _Local(threading.local):
    program: Program | None = None  # what this thread records


_local = _Local()


@contextmanager
def recording() -> Generator[Program | None]:
    """Record the operations that this thread calls meanwhile; None where kernels are not compiled.

    In either case whatever could not run again is refused.

    Raises:
        RecordingError: Something makes memory, or reads or writes numbers in Python; or this thread records already.
    """
    with step.recorded() as recorded, jobs.recording() as made:
        program = _local.program = None if made is None else Program(made)
        try:
            yield program
            if program is not None:
                program.finish(recorded.held)
        finally:
            _local.program = None


def checked_again(job: Callable[..., None], values: tuple[int, ...], explain: Explain) -> None:
    """Have what was checked by a kernel just now checked in every later run of the step that is recorded, if any."""
    if _local.program is not None:
        _local.program.add_check(job, values, explain)
