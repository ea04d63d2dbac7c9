"""Jobs in a row: what a thread called while it recorded, done again in as few calls as can be."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

Again = Callable[[], tuple[int, int]]
"""Does jobs again: how many ended without a stop, and what the one that stopped wrote."""


class JobList(Protocol):
    """Jobs that were called one after the other.

    Attributes:
        stop: Address of an int64: a job that writes another number than 0 there ends the run.
    """

    stop: int

    def __len__(self) -> int:
        """Return how many jobs there are."""
        ...

    def again(self, first: int, last: int) -> Again:
        """Return what does the jobs ``first`` to ``last - 1`` again, in order; none is added later."""
        ...


class CompiledJobs:
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
        self._count = 0
        self._packed: tuple[Any, Any] | None = None
        self._stop = ctypes.c_int64()
        self.stop = ctypes.addressof(self._stop)

    def __len__(self) -> int:
        return self._count

    def add(self, function: int, arguments: bytes, parts: int, helpers: int) -> None:
        """Record a job that was called."""
        self._recorded.append((function, arguments, parts, helpers))
        self._count += 1

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


class PlainJobs:
    """Jobs whose kernels are called from Python, where they run as Python or check every index."""

    def __init__(self) -> None:
        self._recorded: list[tuple[Callable[..., None], tuple[Any, ...], int]] = []
        self._stop = ctypes.c_int64()
        self.stop = ctypes.addressof(self._stop)

    def __len__(self) -> int:
        return len(self._recorded)

    def add(self, function: Callable[..., None], arguments: tuple[Any, ...], parts: int) -> None:
        """Record a job that was called."""
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
