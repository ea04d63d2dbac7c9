import ctypes
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.dtypes import int64
from pio.kernels import _atomics as atomics
from pio.kernels import parallel
from pio.kernels.parallel import parallel_kernel
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


def test_a_forked_child_goes_on_without_helpers():
    script = """
import os, warnings
warnings.simplefilter("ignore")  # forking with threads is what is tested
from pio import ops
from pio.tensor import Tensor
x, w = Tensor.full((3, 50), 0.5), Tensor.full((400, 50), 0.25)
before = bytes(ops.linear(x, w, threads=3).memoryview())
child = os.fork()
after = bytes(ops.linear(x, w, threads=3).memoryview())
if child == 0:
    os._exit(0 if after == before else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or after != before)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode == 0


def test_helpers_are_compiled_before_they_start_and_keep_what_they_read():
    if not parallel.JIT:
        pytest.skip("there are no helpers without the compiler")
    script = """
import gc, weakref
from pio.kernels.parallel import Pool, help_others
pool = Pool()
pool.grow(1)
compiled = list(help_others.signatures)
pool = weakref.ref(pool)
gc.collect()
raise SystemExit(0 if compiled and pool() is not None else f"compiled {compiled}, pool {pool()}")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_protocol_in_plain_python():
    """The control block, one step at a time, with a callback that only records."""
    if parallel.JIT:
        pytest.skip("needs NUMBA_DISABLE_JIT: compiled kernels are not stepped through")
    memory = ctypes.create_string_buffer(parallel.FIELDS + 64)
    control = -(-ctypes.addressof(memory) // 64) * 64
    seen = []
    callback = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(lambda *values: seen.append(values))
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert parallel.claim(control, 1) == 0, "no job yet"
    parallel.run(control, address, 77, 4, 1)
    assert seen == [(77, part, 4) for part in range(4)]
    assert atomics.load(control + parallel.TICKET) == 1 << 32
    seen.clear()
    atomics.store(control + parallel.BUSY, 1)  # another caller has the pool: this one does its own pieces
    parallel.run(control, address, 78, 3, 1)
    assert seen == [(78, part, 3) for part in range(3)]
    assert atomics.load(control + parallel.TICKET) == 1 << 32
    atomics.store(control + parallel.BUSY, 0)
    seen.clear()
    atomics.store(control + parallel.HELPERS, 1)
    atomics.store(control + parallel.TICKET, 2 << 32 | 2)
    assert parallel.claim(control, 2) == 0, "only one helper may join"
    assert parallel.claim(control, 1) == 1
    assert len(seen) == 1
    assert atomics.load(control + parallel.TICKET) == 2 << 32 | 1


def test_threads_do_not_change_a_bit():
    x = Tensor.from_list([[0.1 * i - 0.7 * r for i in range(67)] for r in range(9)])
    w = Tensor.from_list([[((3 * r + i) % 17) / 7 - 1 for i in range(67)] for r in range(501)])
    expected = bits(ops.linear(x, w, threads=1))
    assert all(bits(ops.linear(x, w, threads=threads)) == expected for threads in (2, 3, 5))
