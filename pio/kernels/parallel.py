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

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pio.kernels import _atomics as atomics
from pio.kernels._image import Compiled
from pio.kernels._jit import PerDtype, kernel, make, name_of, parameters, specialise
from pio.kernels._pool import (
    ALONE_UNTIL,
    ARGUMENTS,
    BUSY,
    FUNCTION,
    HELPERS,
    NUMBER,
    PENDING,
    PIECES,
    RANGES,
    SLEEPING,
)
from pio.kernels._settings import PLAIN
from pio.kernels._source import Source
from pio.kernels.jobs import Job

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


def make_job(fn: Callable[..., None], per_thread: int) -> Job:
    """Return the job of a kernel.

    Raises:
        TypeError: Its last two parameters are others, or one has no annotation.
    """
    if list(inspect.signature(fn).parameters)[-2:] != ["part", "parts"]:
        raise TypeError(f"parallel kernel {fn.__name__}: its last two parameters must be part: int, parts: int")
    packed = parameters(fn)[:-2]
    source = Source(name_of(fn), partial(_make, fn, packed, per_thread))
    # with bounds checks a piece must be able to raise, which a job cannot
    job = Job(source, packed, per_thread, fn, kernel(fn) if PLAIN else None)
    source.kernel = job
    return job


def _make(fn: Callable[..., None], packed: str, per_thread: int, source: Source) -> Compiled:
    return make(source, _unpack(fn, packed), packed, "", per_thread, called="qqq")


def _unpack(fn: Callable[..., None], packed: str) -> Callable[[int, int, int], None]:
    """Return ``unpack(arguments, part, parts)``, which calls the kernel with what its job packed."""
    reads = [f"get_{'f' if letter == 'd' else 'i'}64(a + {8 * i})" for i, letter in enumerate(packed)]
    source = f"def unpack(a, part, parts):\n    kernel({', '.join([*reads, 'part', 'parts'])})\n"
    scope: dict[str, Any] = {"kernel": kernel(fn), "get_i64": atomics.get_i64, "get_f64": atomics.get_f64}
    exec(compile(source, fn.__code__.co_filename, "exec"), scope)  # its only names are the three above
    unpack = scope["unpack"]
    unpack.__name__, unpack.__qualname__ = f"{fn.__name__}_job", f"{fn.__qualname__}_job"
    unpack.__module__ = fn.__module__
    return unpack


def parallel_kernel(fn: Callable[..., None] | None = None, *, parts_per_thread: int = 1) -> Any:
    """Compile a kernel of pieces: its last parameters are ``part`` and ``parts``, which say what to do of the whole.

    Args:
        fn: The kernel.
        parts_per_thread: Into how many parts to cut what one thread does; more let a slow thread do less.
    """
    if fn is None:
        return partial(parallel_kernel, parts_per_thread=parts_per_thread)
    return make_job(fn, parts_per_thread)


def parallel_kernel_per_dtype(fn: Callable[..., None] | None = None, *, parts_per_thread: int = 1) -> Any:
    """As ``parallel_kernel``, one for each element type; see ``kernel_per_dtype``."""
    if fn is None:
        return partial(parallel_kernel_per_dtype, parts_per_thread=parts_per_thread)
    body = fn
    return PerDtype(lambda dtype: make_job(specialise(body, dtype), parts_per_thread))
