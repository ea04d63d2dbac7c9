"""A recorded step: jobs of the CPU in rows, or graphs of a GPU, and calls of Python between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from pio.errors import PioError, RecordingError
from pio.kernels.job_list import Again, JobList
from pio.memory import step

Explain = Callable[[int], PioError]

_NESTED: Final = "steps do not nest; run it before or behind the one that is recorded"


class JobProgram:
    """A ``Program`` of jobs, or of graphs."""

    def __init__(self, jobs: JobList) -> None:
        """Begin without operations; ``jobs`` grows as they are called."""
        self._jobs = jobs
        self._checks: dict[int, Explain] = {}
        self._calls: list[tuple[int, Callable[[], object]]] = []  # each with how many jobs or launches are before it
        self._nodes: list[Callable[[], object]] | None = None
        self._held: Sequence[step.Holdable] = ()
        self._last_freed = step.last_freed()

    def add_check(self, job: Callable[..., None], values: tuple[int, ...], explain: Explain) -> None:
        """Record a check; ``job`` writes i + 1 to its first parameter where it finds something wrong at i, else 0."""
        self._checks[self._jobs.count] = explain
        job(self._jobs.stop, *values, 1)

    def add_call(self, function: Callable[[], object]) -> None:
        """Record a call of Python behind the jobs or launches that there are."""
        self._calls.append((self._length, function))

    @property
    def _length(self) -> int:
        return self._jobs.count + len(self._jobs.launches)  # one of the two is 0

    def finish(self, held: Sequence[step.Holdable]) -> None:
        """End the recording.

        Args:
            held: Whatever has memory that the jobs or launches know by its address.
        """
        nodes, first = list[Callable[[], object]](), 0
        for last, function in [*self._calls, (self._length, None)]:
            if first < last:
                nodes.append(self._segment(first, last))
            if function is not None:
                nodes.append(function)
            first = last
        self._held, self._nodes = held, nodes

    def _segment(self, first: int, last: int) -> Callable[[], object]:
        """Return what does jobs or launches again without Python between them."""
        if self._jobs.target is None:
            return partial(_run_jobs, self._jobs.again(first, last), first, self._checks)
        return self._jobs.target.graph(self._jobs.launches[first:last]).run

    def run(self) -> None:
        """Run all of it again; see ``Program``."""
        step.refuse("runs a recorded step", _NESTED)
        if self._nodes is None:
            raise RecordingError("a step was not recorded to its end, for an exception ended it; record it anew")
        for node in self._nodes:
            freed = step.last_freed()  # looked at again behind each host call, which may have freed something
            if freed is not self._last_freed:
                self._check_memory()
                self._last_freed = freed
            node()

    def _check_memory(self) -> None:
        if any(owner.freed for owner in self._held):
            raise RecordingError(
                "a recorded step cannot run again: memory that it works on was freed, such as the cache of a model "
                "behind cleanup(); record a step anew on memory that is there"
            )


def _run_jobs(again: Again, first: int, checks: dict[int, Explain]) -> None:
    """Do jobs again, of which one is the number ``first`` of its step; no method, so that a program is in no cycle."""
    done, found = again()
    if found:
        raise checks[first + done](found - 1)
