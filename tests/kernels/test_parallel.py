import ctypes
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs import needs_alarm, needs_fork

from pio import ops
from pio.device import Device
from pio.dtypes import int64
from pio.kernels import _atomics as atomics
from pio.kernels import _pool, parallel
from pio.kernels.parallel import parallel_kernel
from pio.ops import compilation
from pio.tensor import Tensor
from pio.testing.compare import bits


@parallel_kernel(parts_per_thread=3)
def count_visits(cells: int, n: int, step: float, part: int, parts: int) -> None:
    """Add step to every cell of the part.

    Shapes: cells int64 (n,).
    """
    for i in range(part * n // parts, (part + 1) * n // parts):
        atomics.add(cells + 8 * i, int(step))


@given(n=st.integers(0, 70), threads=st.integers(1, 5), step=st.integers(1, 4))
def test_every_piece_is_done_once(n, threads, step):
    cells = Tensor.zeros((n,), int64)
    for _ in range(5):
        count_visits(cells.address, n, float(step), threads)
    assert cells.tolist() == [5 * step] * n


def test_many_callers_at_once():
    cells = [Tensor.zeros((n,), int64) for n in (7, 31, 64, 100, 3)]

    def call(x):
        for _ in range(300):
            count_visits(x.address, x.size, 1.0, 4)

    callers = [threading.Thread(target=call, args=(x,)) for x in cells]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [x.tolist() for x in cells] == [[300] * x.size for x in cells]


@needs_fork
def test_a_forked_child_goes_on_without_helpers():
    script = """
import os, warnings
warnings.simplefilter("ignore")  # forking with threads is what is tested
from pio import ops
from pio.device import Device
from pio.tensor import Tensor
x, w = Tensor.full((3, 50), 0.5), Tensor.full((400, 50), 0.25)
before = bytes(ops.linear(x.to(Device("cpu", 3)), w).memoryview())
child = os.fork()
after = bytes(ops.linear(x.to(Device("cpu", 3)), w).memoryview())
if child == 0:
    os._exit(0 if after == before else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or after != before)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode == 0


def test_helpers_are_compiled_before_they_start_and_keep_what_they_read():
    if not compilation.enabled() or compilation.checked():
        pytest.skip("there are no helpers without the compiler")
    script = """
import gc, weakref
from pio.kernels._pool import SIZE, Pool
from pio.kernels.jobs import Serial
help_others = Serial.named("pio.kernels.parallel", "help_others")
start, compiled = Pool._start, []
Pool._start = lambda pool: (compiled.append(help_others._function is not None), start(pool))[1]
pool = Pool(SIZE, help_others)
pool.grow(1)
pool = weakref.ref(pool)
gc.collect()
raise SystemExit(0 if compiled == [True] and pool() is not None else f"compiled {compiled}, pool {pool()}")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.skipif(not compilation.enabled() or compilation.checked(), reason="kernels run in the calling thread")
def test_a_helper_that_the_system_refuses_costs_speed_only():
    """One of three is refused; a load that follows asks for it again."""
    if not compilation.enabled():
        pytest.skip("there are no helpers without the compiler")
    script = """
import threading
from pio import ops
from pio.device import Device
from pio.kernels import jobs
from pio.tensor import Tensor

real, left = threading.Thread.start, [1]

def some(thread):
    if thread.name.startswith("pio-helper"):
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
    real(thread)

x, w = Tensor.full((64, 512), 0.25), Tensor.full((512, 512), 0.5)
expected = ops.linear(x.to(Device("cpu", 1)), w).tolist()
threading.Thread.start = some
for _ in range(3):
    assert ops.linear(x.to(Device("cpu", 4)), w).tolist() == expected
assert jobs.helpers() == 1
threading.Thread.start = real
with jobs.listing():
    pass
assert ops.linear(x.to(Device("cpu", 4)), w).tolist() == expected
assert jobs.helpers() == 3
"""
    ran = subprocess.run([sys.executable, "-c", script], check=True, timeout=120, capture_output=True, text=True)
    assert ran.stderr.count("the system refuses more threads") == 1


@pytest.fixture
def stepped():
    """A control block, and a callback that records its calls and then does what it is told."""
    if compilation.enabled():
        pytest.skip("needs NUMBA_DISABLE_JIT: compiled kernels are not stepped through")
    memory = ctypes.create_string_buffer(_pool.SIZE + 64)
    seen, then = [], []

    def record(*values):
        seen.append(values)
        if then:
            then.pop(0)()

    callback = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(record)
    control = -(-ctypes.addressof(memory) // 64) * 64
    yield control, ctypes.cast(callback, ctypes.c_void_p).value, seen, then
    del memory, callback


def test_a_caller_without_help_does_all_pieces(stepped):
    control, address, seen, _ = stepped
    assert parallel.work(control, 1, 0) == 0, "no job yet"
    parallel.run(control, address, 77, 5, 1)
    # its own two from the front, then the helper's by rear halves
    assert seen == [(77, part, 5) for part in (0, 1, 3, 4, 2)]
    assert atomics.load(control + parallel.NUMBER) == 1
    assert atomics.load(control + parallel.PENDING) == 0
    assert parallel.work(control, 1, 1) == 0, "nothing is left"


def test_a_caller_that_finds_the_pool_busy_does_its_own_pieces(stepped):
    control, address, seen, _ = stepped
    atomics.store(control + parallel.BUSY, 1)
    parallel.run(control, address, 78, 3, 1)
    assert seen == [(78, part, 3) for part in range(3)]
    assert atomics.load(control + parallel.NUMBER) == 0


def test_a_helper_does_its_range_and_half_of_what_another_has_left(stepped):
    control, address, seen, then = stepped
    then.append(lambda: parallel.work(control, 1, 1))  # within the caller's first piece of eight
    then += [lambda: None] * 3
    then.append(lambda: parallel.work(control, 2, 1))  # a third thread may not join
    parallel.run(control, address, 79, 8, 1)
    assert [part for _, part, _ in seen] == [0, 4, 5, 6, 7, 2, 3, 1]
    assert atomics.load(control + parallel.PENDING) == 0


def test_a_helper_that_comes_late_takes_nothing_of_the_next_job(stepped):
    control, address, seen, _ = stepped
    parallel.run(control, address, 80, 4, 1)
    seen.clear()
    range_of_next = parallel.as_range(2, 2, 4)
    atomics.store(control + parallel.RANGES + 64, range_of_next)
    assert parallel.work(control, 1, 1) == 0
    assert atomics.load(control + parallel.RANGES + 64) == range_of_next
    assert seen == []


def test_numbers_of_jobs_begin_again(stepped):
    control, address, seen, _ = stepped
    atomics.store(control + parallel.NUMBER, parallel.NUMBERS)
    parallel.run(control, address, 81, 2, 1)
    assert len(seen) == 2
    assert atomics.load(control + parallel.NUMBER) == 1


def test_threads_do_not_change_a_bit():
    x = Tensor.from_list([[0.1 * i - 0.7 * r for i in range(67)] for r in range(9)])
    w = Tensor.from_list([[((3 * r + i) % 17) / 7 - 1 for i in range(67)] for r in range(501)])
    expected = bits(ops.linear(x.to(Device("cpu", 1)), w))
    assert all(bits(ops.linear(x.to(Device("cpu", threads)), w)) == expected for threads in (2, 3, 5))


@needs_alarm
def test_a_signal_handler_that_calls_kernels_changes_nothing():
    """Whatever call it interrupts: each has memory of its own for its arguments."""
    x, mine, other, theirs = Tensor.full((7,), 2.0), Tensor.zeros((7,)), Tensor.full((5,), 3.0), Tensor.zeros((5,))
    calls = 0

    def call_another(*_):
        nonlocal calls
        calls += 1
        ops.add(other, other, out=theirs.fill_(0.0))
        assert theirs.tolist() == [6.0] * 5
        if calls < 300:  # none is under way when the handler of before is put back
            signal.setitimer(signal.ITIMER_REAL, 2e-4)

    before = signal.signal(signal.SIGALRM, call_another)
    signal.setitimer(signal.ITIMER_REAL, 2e-4)
    try:
        while calls < 300:
            mine.fill_(0.0)
            ops.add(x, x, out=mine)
            assert mine.tolist() == [4.0] * 7
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
