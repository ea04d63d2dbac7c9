"""Recorded steps: operations that run again in one call, on memory that the recording holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from pio.device import Device
from pio.dtypes import int64
from pio.kernels import jobs
from pio.memory import step
from pio.ops._job_program import Explain, JobProgram
from pio.tensor import Tensor

__all__ = ["Program", "checked_again", "checked_there", "host_call", "recording"]


class Program(Protocol):
    """A recorded step: what a thread called runs again, in order, on the same memory, whatever that holds by then.

    It keeps all memory that operations read and write. What runs between them in Python is not part of it, but for
    ``host_call``. How it runs is the device's: on a CPU, jobs in a row without Python between them; on a GPU, graphs.
    """

    def run(self) -> None:
        """Run it again.

        Whatever is raised, it ended there: nothing behind ran, and the next run begins at the front.

        Raises:
            TensorError: Numbers that an operation reads as indices are out of range by now.
            RecordingError: This thread records a step; or memory that the step works on was freed.
            Exception: What a host call raises.
        """
        ...


class _Local(threading.local):
    program: JobProgram | None = None  # what this thread records


_local = _Local()


@contextmanager
def recording() -> Generator[Program]:
    """Record the operations that this thread calls meanwhile; they run as they are recorded.

    Whatever could not run again is refused.

    Raises:
        RecordingError: Something makes or frees memory, or reads or writes numbers in Python; or this thread records
            already.
    """
    with step.recorded() as recorded, jobs.recording() as made:
        program = _local.program = JobProgram(made)
        try:
            yield program
            program.finish(recorded.held)
        finally:
            _local.program = None


def host_call(function: Callable[[], object]) -> None:
    """Call a function of Python between operations, now and at this place in every later run of a recorded step.

    It may do what operations in a step may not: make memory, read and write numbers, call kernels, wait for a file or
    for another process. What it returns is dropped; operations behind it see what it wrote. A step pays for it with a
    return to Python in every run, so this is for what no operation can do.

    Args:
        function: Takes nothing; reads the numbers of this run from tensors that it knows. While a model is warmed up,
            which runs no kernel at first, it is left out there.
    """
    program = _local.program
    if program is None:
        function()
        return
    if not jobs.is_listing():
        _local.program = None
        try:
            with step.paused(), jobs.paused():
                function()
        finally:
            _local.program = program
    program.add_call(function)


def checked_again(job: Callable[..., None], values: tuple[int, ...], explain: Explain) -> None:
    """Have what was checked by a kernel just now checked in every later run of the step that is recorded, if any."""
    if _local.program is not None:
        _local.program.add_check(job, values, explain)


def checked_there(job: Callable[..., None], values: tuple[int, ...], explain: Explain, device: Device) -> None:
    """Have a kernel of a GPU check something and wait for what it finds, now and in every later run of a step.

    What comes behind reads by what was checked, so it must not run before: a step goes on when the GPU has answered.

    Args:
        job: Writes i + 1 to its first parameter, an int64, where it finds something wrong at i, else 0.
        values: Its other arguments.
        explain: Makes the error for i.
        device: Where it runs.
    """
    with step.paused():
        found = Tensor.zeros((1,), int64, device)

    def look() -> None:
        with step.paused():
            bad: int = found.item()
        if bad:
            raise explain(bad - 1)

    job(found.address, *values, 1)
    if not jobs.is_listing():
        look()
    if _local.program is not None:
        _local.program.add_call(look)
