"""Parallel kernels: pieces of work that this thread and a few sleeping helpers share.

One pool serves the process. A job is a compiled function, its arguments and a number of pieces. Each thread begins
with a range of pieces that lie side by side in memory, and takes them one by one from the front; when it has none
left it takes the rear half of another thread's. So every thread reads one long stream, all of them end within a
small piece of each other, and a helper that the system has not scheduled costs nothing: the others do its range, and
the caller waits only for pieces that somebody has begun. A second caller finds the pool busy and does its own pieces.
So any number of threads may call kernels at once, a forked child goes on without helpers, and nothing depends on an
OpenMP or TBB library. Which thread does a piece never changes a bit of the result.
"""

from __future__ import annotations

import ctypes
import inspect
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from pio.kernels import _atomics as atomics
from pio.kernels._jit import BOUNDSCHECK, PerDtype, callback, floats, kernel, specialise, uninterrupted
from pio.kernels._pool import Pool
from pio.kernels.simd import JIT

# One cache line for each field that threads wait on, and for each thread's range of pieces.
NUMBER, JOB, PENDING, SLEEPING, BUSY, ALONE_UNTIL, RANGES = (64 * i for i in range(7))
FUNCTION, ARGUMENTS, PIECES, HELPERS = (JOB + 8 * i for i in range(4))
MAX_THREADS: Final = 1024  # each has a range, and FINE pieces for each must fit into FIRST_BITS
SIZE: Final = RANGES + 64 * MAX_THREADS
# A range is one word: its job's number, the first of its pieces, and the one behind the last.
NUMBER_BITS, FIRST_BITS = 32, 16
PIECE: Final = (1 << FIRST_BITS) - 1
NUMBERS: Final = (1 << 31) - 1

FINE: Final = 16  # pieces for each thread where cutting costs nothing: as much as one may wait for another's last

SPINS: Final = 20_000  # turns that a helper watches for the next job before it sleeps: about a millisecond
PATIENCE: Final = 2_000  # turns that a caller waits for a begun piece before it offers its core to others
STALL_NS: Final = 300_000  # a piece that takes so much longer than two of the caller's was put aside by the system
ALONE: Final = 4  # for how many stalls' time the caller then works alone,
ALONE_NS: Final = 20_000_000  # but no longer than this


@kernel
def as_range(number: int, first: int, last: int) -> int:
    """Return the word for the pieces first <= piece < last of a job.

    Shapes: none.
    """
    return number << NUMBER_BITS | first << FIRST_BITS | last


@kernel
def take(control: int, thread: int, number: int, helpers: int) -> int:
    """Take a piece of a job: the next of this thread's range, else half of another's; -1 if none is left.

    A range that belongs to another job by now counts as empty. Only its thread fills an empty range, others only
    take from one that is not, so a word that is still the same is as good as it was.

    Shapes: control as laid out above.
    """
    own = control + RANGES + 64 * thread
    while True:
        word = atomics.load(own)
        first, last = word >> FIRST_BITS & PIECE, word & PIECE
        if word >> NUMBER_BITS != number:
            return -1
        if first == last:
            break
        if atomics.replace(own, word, as_range(number, first + 1, last)):
            return first
    for i in range(helpers):
        others = control + RANGES + 64 * ((thread + 1 + i) % (helpers + 1))
        while True:
            word = atomics.load(others)
            first, last = word >> FIRST_BITS & PIECE, word & PIECE
            if word >> NUMBER_BITS != number or first == last:
                break
            middle = (first + last) // 2
            if atomics.replace(others, word, as_range(number, first, middle)):
                atomics.store(own, as_range(number, middle + 1, last))
                return middle
    return -1


@kernel
def work(control: int, thread: int, number: int) -> int:
    """Do pieces of a job until none is left for this thread; return how many it did.

    Shapes: control as laid out above; thread 0 is the caller.
    """
    function, arguments = atomics.load(control + FUNCTION), atomics.load(control + ARGUMENTS)
    pieces, helpers = atomics.load(control + PIECES), atomics.load(control + HELPERS)
    # the fields belong to this job if it has a piece left: they are written only between jobs; a thread that is not
    # to help finds the range of an older one
    done = 0
    while True:
        piece = take(control, thread, number, helpers)
        if piece < 0:
            break
        atomics.call(function, arguments, piece, pieces)
        done += 1
    if done > 0:
        atomics.add(control + PENDING, -done)
    return done


@kernel
def help_others(control: int, thread: int) -> None:
    """Work on one job after another, for ever; sleep while there are none.

    Shapes: control as laid out above.
    """
    idle, seen = 0, 0
    while True:
        number = atomics.load(control + NUMBER)
        if number != seen:
            idle, seen = 0, number
            work(control, thread, number)
            continue
        idle += 1
        atomics.pause()
        if idle > SPINS:
            atomics.add(control + SLEEPING, 1)
            atomics.sleep(control + NUMBER, seen)  # returns at once if the number is another by now
            atomics.add(control + SLEEPING, -1)
            idle = 0


@kernel
def run(control: int, function: int, arguments: int, pieces: int, helpers: int) -> None:
    """Call function(arguments, piece, pieces) for every piece, with the helpers that are awake, and wait for all.

    Shapes: control as laid out above; helpers is how many may join.
    """
    alone = pieces == 1 or helpers == 0
    if not alone:
        until = atomics.load(control + ALONE_UNTIL)
        alone = until > 0 and atomics.now() < until
    if alone or not atomics.replace(control + BUSY, 0, 1):
        for piece in range(pieces):
            atomics.call(function, arguments, piece, pieces)
        return
    number = atomics.load(control + NUMBER) % NUMBERS + 1
    atomics.store(control + FUNCTION, function)
    atomics.store(control + ARGUMENTS, arguments)
    atomics.store(control + PIECES, pieces)
    atomics.store(control + HELPERS, helpers)
    atomics.store(control + PENDING, pieces)
    threads = helpers + 1
    for thread in range(threads):
        first, last = thread * pieces // threads, (thread + 1) * pieces // threads
        atomics.store(control + RANGES + 64 * thread, as_range(number, first, last))
    atomics.store(control + NUMBER, number)
    if atomics.load(control + SLEEPING) > 0:
        atomics.wake(control + NUMBER)
    begin = atomics.now()
    mine = work(control, 0, number)
    wait_for_pending(control, (atomics.now() - begin) // max(mine, 1))
    atomics.store(control + BUSY, 0)


@kernel
def wait_for_pending(control: int, usual: int) -> None:
    """Wait for the pieces that others have begun; where one stalls, let the next jobs do without help for a while.

    Shapes: control as laid out above; usual is how long a piece takes, in nanoseconds.
    """
    turns, since = 0, 0
    while atomics.load(control + PENDING) > 0:
        turns += 1
        if turns < PATIENCE:
            atomics.pause()
            continue
        if turns == PATIENCE:
            since = atomics.now()
        atomics.give_way()
    if turns >= PATIENCE:
        waited = atomics.now() - since
        if waited > STALL_NS + 2 * usual:
            atomics.store(control + ALONE_UNTIL, atomics.now() + min(ALONE * waited, ALONE_NS))


_pool = Pool(SIZE, help_others)
_local = threading.local()


def helpers() -> int:
    """Return how many helpers this process has by now."""
    return _pool.helpers


def _argument_buffer() -> tuple[Any, int]:
    """Memory for the arguments of a job: one for each calling thread, for as long as the thread lives."""
    found = getattr(_local, "buffer", None)
    if found is None:
        memory = ctypes.create_string_buffer(8 * 64)
        found = _local.buffer = memory, ctypes.addressof(memory)
    return found


@kernel
def run_all(control: int, jobs: int, count: int, stop: int) -> int:
    """Run one job after another, up to one that sets ``stop``; return how many ended without.

    Shapes: control as laid out above; jobs int64 (count, 4): function, arguments, pieces, helpers; stop int64 (1,).
    """
    for i in range(count):
        job = jobs + 32 * i
        function, arguments = atomics.get_i64(job), atomics.get_i64(job + 8)
        run(control, function, arguments, atomics.get_i64(job + 16), atomics.get_i64(job + 24))
        if atomics.get_i64(stop) != 0:
            return i
    return count


class Program:
    """Jobs in a row, recorded once and run again in one call: the same memory, whatever it holds by then.

    What runs between the jobs in Python is not part of it.

    Attributes:
        stop: Address of an int64: a job that writes another number than 0 there ends the run.
    """

    def __init__(self) -> None:
        self._recorded: list[tuple[int, bytes, int, int]] = []
        self._memory: tuple[Any, Any, int] | None = None
        self._stop = ctypes.c_int64()
        self.stop = ctypes.addressof(self._stop)

    def __len__(self) -> int:
        return self._memory[2] if self._memory else len(self._recorded)

    def add(self, function: int, arguments: bytes, parts: int, helpers: int) -> None:
        """Record a job that was called."""
        self._recorded.append((function, arguments, parts, helpers))

    def run(self) -> tuple[int, int]:
        """Run the jobs again, in order; return how many ended without a stop, and what was written to ``stop``."""
        self.pack()
        assert self._memory is not None
        _, jobs, count = self._memory
        self._stop.value = 0
        return run_all(_pool.control, ctypes.addressof(jobs), count, self.stop), self._stop.value

    def pack(self) -> None:
        """Lay the jobs out as ``run_all`` reads them, which takes a fraction of the memory; none is added later."""
        if self._memory is not None:
            return
        packed = b"".join(arguments for _, arguments, _, _ in self._recorded)
        memory = ctypes.create_string_buffer(packed, len(packed) + 1)
        at, fields = ctypes.addressof(memory), list[int]()
        for function, arguments, parts, helpers in self._recorded:
            fields += function, at, parts, helpers
            at += len(arguments)
        self._memory = memory, (ctypes.c_int64 * len(fields))(*fields), len(self._recorded)
        self._recorded = []


@contextmanager
def recording() -> Generator[Program | None]:
    """Record the parallel kernels that this thread calls meanwhile; None where they are not compiled to jobs."""
    program = None if BOUNDSCHECK or not JIT else Program()
    _local.program = program
    try:
        yield program
    finally:
        _local.program = None


@contextmanager
def listing() -> Generator[list[Job]]:
    """List the parallel kernels that this thread calls meanwhile, without running them: what they write stays as is."""
    _pool.retry()  # a model is being loaded
    _local.listed = listed = list[Job]()
    try:
        yield listed
    finally:
        _local.listed = None


class Job:
    """A kernel that does one piece of its work; calling it does all pieces.

    The kernel's last two parameters are ``part`` and ``parts``. The call takes the others, and in their place how
    many threads may take part.
    """

    __slots__ = ("_address", "_floats", "_fn", "_pack", "_per_thread", "_plain")

    def __init__(self, fn: Callable[..., None], per_thread: int) -> None:
        self._fn = fn
        self._per_thread = per_thread
        self._address = 0
        if list(inspect.signature(fn).parameters)[-2:] != ["part", "parts"]:
            raise TypeError(f"parallel kernel {fn.__name__}: its last two parameters must be part: int, parts: int")
        self._floats = floats(fn)[:-2]
        self._pack = struct.Struct("".join("d" if is_float else "q" for is_float in self._floats)).pack_into
        # with bounds checks a piece must be able to raise, which a callback cannot
        self._plain: Callable[..., None] | None = kernel(fn) if BOUNDSCHECK or not JIT else None

    def __call__(self, *values: Any) -> None:
        """Do all of the work; the last value is how many threads may take part."""
        listed: list[Job] | None = getattr(_local, "listed", None)
        if listed is not None:
            listed.append(self)
            return
        threads = min(values[-1], MAX_THREADS)
        parts = threads * self._per_thread if threads > 1 else 1
        if self._plain is not None:
            for part in range(parts):
                self._plain(*values[:-1], part, parts)
            return
        if threads - 1 > _pool.wanted:
            _pool.grow(threads - 1)
        buffer, at = _argument_buffer()
        self._pack(buffer, 0, *values[:-1])
        address = self._address or self._compile()
        program: Program | None = getattr(_local, "program", None)
        if program is not None:
            program.add(address, buffer.raw[: 8 * len(self._floats)], parts, threads - 1)
        run(_pool.control, address, at, parts, threads - 1)

    @property
    def kernel(self) -> Callable[..., None]:
        """The function that does a piece."""
        return self._fn

    def callback(self) -> Any:
        """Return ``unpack(arguments, part, parts)``, which calls the kernel with what ``__call__`` packed."""
        reads = [f"get_{'f' if is_float else 'i'}64(a + {8 * i})" for i, is_float in enumerate(self._floats)]
        source = f"def unpack(a, part, parts):\n    kernel({', '.join([*reads, 'part', 'parts'])})\n"
        scope: dict[str, Any] = {"kernel": kernel(self._fn), "get_i64": atomics.get_i64, "get_f64": atomics.get_f64}
        exec(compile(source, self._fn.__code__.co_filename, "exec"), scope)  # its only names are the three above
        unpack = scope["unpack"]
        unpack.__name__, unpack.__qualname__ = f"{self._fn.__name__}_job", f"{self._fn.__qualname__}_job"
        unpack.__module__ = self._fn.__module__
        return callback(unpack)

    def _compile(self) -> int:
        made = self.callback()
        uninterrupted(made.compile)
        self._address = int(made.address)
        return self._address


def parallel_kernel(fn: Callable[..., None] | None = None, *, parts_per_thread: int = 1) -> Any:
    """Compile a kernel of pieces: its last parameters are ``part`` and ``parts``, which say what to do of the whole.

    Args:
        fn: The kernel.
        parts_per_thread: Into how many parts to cut what one thread does; more let a slow thread do less.
    """
    if fn is None:
        return partial(parallel_kernel, parts_per_thread=parts_per_thread)
    return Job(fn, parts_per_thread)


def parallel_kernel_per_dtype(fn: Callable[..., None] | None = None, *, parts_per_thread: int = 1) -> Any:
    """As ``parallel_kernel``, one for each element type; see ``kernel_per_dtype``."""
    if fn is None:
        return partial(parallel_kernel_per_dtype, parts_per_thread=parts_per_thread)
    body = fn
    return PerDtype(lambda dtype: Job(specialise(body, dtype), parts_per_thread))
