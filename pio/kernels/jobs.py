"""Calling kernels: serial ones as functions, parallel ones as jobs that the pool does, alone or in recorded rows.

A job is a compiled function, its arguments and a number of pieces; `parallel` says how threads share them. Nothing
here takes the compiler: machine code is called by its address, without the GIL.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol

from pio.kernels import _settings
from pio.kernels._image import Compiled, CudaName, Name
from pio.kernels._pool import MAX_THREADS, SIZE, Pool
from pio.kernels._source import Source
from pio.kernels.job_list import CompiledJobs, JobList, PlainJobs

_C: Final[dict[str, Any]] = {"q": ctypes.c_int64, "d": ctypes.c_double, "?": ctypes.c_bool, "": None}
_PARALLEL: Final = "pio.kernels.parallel"

_local = threading.local()


class Wanted(Protocol):
    """A kernel that another process can compile."""

    @property
    def name(self) -> Name | CudaName:
        """How it finds the kernel."""
        ...

    def is_kept(self) -> bool:
        """Return whether the folder of compiled kernels holds it, or can never hold it."""
        ...


class Serial:
    """A kernel that is called as a function: integers and floats in, one or nothing out.

    Attributes:
        source: Its machine code.
        py_func: The function that says what it does, where its module has been imported.
    """

    def __init__(self, source: Source, py_func: Callable[..., Any] | None = None) -> None:
        self.source = source
        self.py_func = py_func
        self._function: Callable[..., Any] | None = None

    @classmethod
    def named(cls, module: str, name: str) -> Serial:
        """Return a kernel by the name that its module gives it; the module is imported where it is to be compiled."""
        return cls(Source(Name(module, name)))

    def __call__(self, *values: Any) -> Any:
        """Run it, with the GIL released."""
        return (self._function or self.prepare())(*values)

    def prepare(self) -> Callable[..., Any]:
        """Have the machine code loaded, so that calling takes no lock."""
        if self._function is None:
            address, how = self.source.load()
            self._function = ctypes.CFUNCTYPE(_C[how.result], *[_C[p] for p in how.parameters])(address)
        return self._function


_run, _run_all = Serial.named(_PARALLEL, "run"), Serial.named(_PARALLEL, "run_all")
_help_others = Serial.named(_PARALLEL, "help_others")
_pool = Pool(SIZE, _help_others)
POOL: Final = (_run, _run_all, _help_others)  # the kernels that all jobs need


def helpers() -> int:
    """Return how many helpers this process has by now."""
    return _pool.helpers


def _new_buffer() -> tuple[Any, int]:
    """Memory for the arguments of a job, and its address."""
    memory = ctypes.create_string_buffer(8 * 64)
    return memory, ctypes.addressof(memory)


@contextmanager
def recording() -> Generator[JobList]:
    """Record the parallel kernels that this thread calls meanwhile."""
    recorded = PlainJobs() if _settings.PLAIN else CompiledJobs(_run_all, _pool.control)
    with _recording_to(recorded):
        yield recorded


def paused() -> AbstractContextManager[None]:
    """Call kernels beside what this thread records."""
    return _recording_to(None)


@contextmanager
def _recording_to(jobs: JobList | None) -> Generator[None]:
    before, _local.recorded = getattr(_local, "recorded", None), jobs
    try:
        yield
    finally:
        _local.recorded = before


@contextmanager
def listing() -> Generator[list[Job | Absent]]:
    """List the parallel kernels that this thread calls meanwhile, without running them: what they write stays as is."""
    _pool.retry()  # a model is being loaded
    _local.listed = listed = list[Job | Absent]()
    try:
        yield listed
    finally:
        _local.listed = None


def is_listing() -> bool:
    """Return whether this thread only lists parallel kernels; what one reads may not have been written then."""
    return getattr(_local, "listed", None) is not None


def record_launch(name: str, target: object, launch: tuple[Any, ...]) -> None:
    """Record a launch on a GPU where this thread records.

    Raises:
        RecordingError: It has recorded kernels of another device.
    """
    recorded: Any = getattr(_local, "recorded", None)
    if recorded is not None:
        recorded.add_launch(name, target, launch)


class Absent:
    """A kernel that is to be listed and has yet to be compiled: only its name, which takes no compiler.

    It stands for serial kernels too, which return nothing then; operations ask ``is_listing`` before they use a result.

    Attributes:
        source: What will be its machine code.
    """

    def __init__(self, source: Wanted) -> None:
        self.source = source

    def __call__(self, *_: Any) -> None:
        """List it."""
        _local.listed.append(self)


class Job:
    """A kernel that does one piece of its work; calling it does all pieces.

    The kernel's last two parameters are ``part`` and ``parts``. The call takes the others, and in their place how
    many threads may take part.

    Attributes:
        source: Its machine code.
        py_func: The function that says what a piece is, where its module has been imported.
    """

    __slots__ = ("_address", "_nbytes", "_pack", "_per_thread", "_plain", "py_func", "source")

    def __init__(
        self,
        source: Source,
        parameters: str,
        per_thread: int,
        py_func: Callable[..., None] | None = None,
        plain: Callable[..., None] | None = None,
    ) -> None:
        """Make a job of a kernel.

        Args:
            source: Its machine code.
            parameters: A letter for each, without the last two: ``q`` for an integer, ``d`` for a float.
            per_thread: Into how many parts to cut what one thread does.
            py_func: The function.
            plain: What to call for each piece in the calling thread instead; None where jobs are compiled.
        """
        self.source = source
        self.py_func = py_func
        self._per_thread = per_thread
        self._address = 0
        self._nbytes = 8 * len(parameters)
        self._pack = struct.Struct(parameters).pack_into
        self._plain = plain

    def __call__(self, *values: Any) -> None:
        """Do all of the work; the last value is how many threads may take part."""
        listed: list[Job | Absent] | None = getattr(_local, "listed", None)
        if listed is not None:
            listed.append(self)
            return
        threads = min(values[-1], MAX_THREADS)
        parts = threads * self._per_thread if threads > 1 else 1
        recorded: Any = getattr(_local, "recorded", None)
        if self._plain is not None:
            if recorded is not None:
                recorded.add(self.source.name.full, self._plain, values[:-1], parts)
            for part in range(parts):
                self._plain(*values[:-1], part, parts)
            return
        if threads - 1 > _pool.wanted:
            _pool.grow(threads - 1)
        address = self._address or self.prepare()
        # each thread keeps one, but a signal handler that calls a kernel in the middle of this gets another
        own = _local.__dict__
        memory = own.pop("buffer", None) or _new_buffer()
        buffer, at = memory
        self._pack(buffer, 0, *values[:-1])
        if recorded is not None:
            recorded.add(self.source.name.full, address, buffer.raw[: self._nbytes], parts, threads - 1)
        _run(_pool.control, address, at, parts, threads - 1)
        own["buffer"] = memory

    def prepare(self) -> int:
        """Have the machine code loaded; return its address."""
        if self._address == 0:
            self._address, _ = self.source.load()
        return self._address


def of(name: Name, compiled: Compiled) -> Job | Serial:
    """Return a kernel that has been read from the folder of compiled kernels."""
    source = Source(name, known=compiled)
    if compiled.parts_per_thread:
        return Job(source, compiled.parameters, compiled.parts_per_thread)
    return Serial(source)
