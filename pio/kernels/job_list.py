"""Jobs in a row: what a thread called while it recorded, done again in as few calls as can be."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

from pio.errors import RecordingError

Again = Callable[[], tuple[int, int]]
"""Does jobs again: how many ended without a stop, and what the one that stopped wrote."""


class Launches:
    """What a thread called while it recorded: jobs of the CPU, which are counted, or launches of kernels on a GPU.

    Attributes:
        count: How many jobs there are.
        target: The stream that launches were put into; None where there are none.
        launches: What it took, in order.
    """

    def __init__(self) -> None:
        """Begin without either."""
        self.count = 0
        self.target: Any = None
        self.launches: list[Any] = []

    def add_launch(self, name: str, target: object, launch: tuple[Any, ...]) -> None:
        """Record a launch of a kernel of that name.

        Raises:
            RecordingError: There are launches on another GPU, or jobs of the CPU.
        """
        if self.count or (self.launches and target is not self.target):
            raise _mixed(f"{name} on a GPU", "the CPU" if self.count else "another GPU")
        self.target = target
        self.launches.append(launch)

    def _count_job(self, name: str) -> None:
        if self.launches:
            raise _mixed(f"{name} on the CPU", "a GPU")
        self.count += 1


def _mixed(what: str, before: str) -> RecordingError:
    return RecordingError(
        f"a step that is recorded runs {what} behind kernels on {before}: a step runs on one device; bring all of its "
        "tensors there by .to(), or do the other part in a function for ops.host_call"
    )


class JobList(Protocol):
    """Jobs that were called one after the other.

    Attributes:
        stop: Address of an int64: a job that writes another number than 0 there ends the run.
        count: How many jobs there are.
        target: The stream that launches on a GPU were put into instead; None where there are none.
        launches: What it took, in order.
    """

    stop: int
    count: int
    target: Any
    launches: list[Any]

    def again(self, first: int, last: int) -> Again:
        """Return what does the jobs ``first`` to ``last - 1`` again, in order; none is added later."""
        ...


class CompiledJobs(Launches):
    """Jobs by the addresses of their machine code, which are done without Python between them."""

    def __init__(self, run_all: Callable[..., int], control: int) -> None:
        """Begin without jobs.

        Args:
            run_all: Kernel that does jobs in a row.
            control: Address of the pool's memory, which it takes.
        """
        self._run_all = run_all
        self._control = control
        self._recorded: list[tuple[int, bytes, int, int]] = []
        super().__init__()
        self._packed: tuple[Any, Any] | None = None
        self._stop = ctypes.c_int64()
        self.stop = ctypes.addressof(self._stop)

    def add(self, name: str, function: int, arguments: bytes, parts: int, helpers: int) -> None:
        """Record a job that was called, of a kernel of that name."""
        self._count_job(name)
        self._recorded.append((function, arguments, parts, helpers))

    def again(self, first: int, last: int) -> Again:
        """Return what does the jobs ``first`` to ``last - 1`` again, in order; none is added later."""
        packed = self._pack()
        # as C has them: converting them takes longer than the call
        values = self._control, ctypes.addressof(packed[1]) + 32 * first, last - first, self.stop
        arguments, run_all, stop = tuple(map(ctypes.c_int64, values)), self._run_all, self._stop

        def again(_packed: object = packed) -> tuple[int, int]:
            stop.value = 0
            return run_all(*arguments), stop.value

        return again

    def _pack(self) -> tuple[Any, Any]:
        """Lay the jobs out as ``run_all`` reads them, which takes a fraction of the memory."""
        if self._packed is None:
            packed = b"".join(arguments for _, arguments, _, _ in self._recorded)
            memory = ctypes.create_string_buffer(packed, len(packed) + 1)
            at, fields = ctypes.addressof(memory), list[int]()
            for function, arguments, parts, helpers in self._recorded:
                fields += function, at, parts, helpers
                at += len(arguments)
            self._packed = memory, (ctypes.c_int64 * len(fields))(*fields)
            self._recorded = []
        return self._packed


class PlainJobs(Launches):
    """Jobs whose kernels are called from Python, where they run as Python or check every index."""

    def __init__(self) -> None:
        self._recorded: list[tuple[Callable[..., None], tuple[Any, ...], int]] = []
        super().__init__()
        self._stop = ctypes.c_int64()
        self.stop = ctypes.addressof(self._stop)

    def add(self, name: str, function: Callable[..., None], arguments: tuple[Any, ...], parts: int) -> None:
        """Record a job that was called, of a kernel of that name."""
        self._count_job(name)
        self._recorded.append((function, arguments, parts))

    def again(self, first: int, last: int) -> Again:
        """Return what does the jobs ``first`` to ``last - 1`` again, in order."""
        jobs = self._recorded[first:last]

        def again() -> tuple[int, int]:
            self._stop.value = 0
            for done, (function, arguments, parts) in enumerate(jobs):
                for part in range(parts):
                    function(*arguments, part, parts)
                if self._stop.value:
                    return done, self._stop.value
            return len(jobs), 0

        return again
