"""What leaves a GPU for disk: nobody waits for it but who writes it, and what it came from may change at once."""

import ctypes
import gc
import os

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver, Misuse
from gpus import having
from hypothesis import given, settings
from hypothesis import strategies as st

from pio.device import Device
from pio.errors import DeviceError, OutOfMemoryError
from pio.memory.budget import MemoryBudget
from pio.memory.outgoing import NoOutgoing, outgoing

WAITS = {"wait", "await_event", "wait_all"}


class Pool:
    """Memory of a GPU with bytes that tell where they are."""

    def __init__(self, nbytes=1000):
        self.stream, self.nbytes = Device("cuda").stream, nbytes
        self.address = self.stream.allocate(nbytes)
        self.bytes = bytes((7 * i + i // 251) % 256 for i in range(nbytes))
        memory = ctypes.create_string_buffer(self.bytes, nbytes)
        self.stream.copy_in(self.address, ctypes.addressof(memory), nbytes)

    def free(self):
        self.stream.drop(self.address)


# The buffer


def test_pieces_come_as_they_were_though_all_is_written_over(driver):
    pool = Pool()
    back = pool.stream.write_back(400)
    driver.calls.clear()
    for first in (0, 100):
        back.gather([(0, pool.address + first, 100), (100, pool.address + first + 300, 250)])
        back.gather([(350, pool.address + 999, 1)])
        back.bring(351)
        pool.stream.fill(pool.address + 600, first + 1, 300)  # what the next step does, or the one after
    assert not WAITS & set(driver.calls), "nobody waits, not even for the buffer's first bytes to come"
    assert (driver.calls.count("copy_all"), driver.calls.count("copy_out")) == (4, 2)
    back.wait()
    expected = pool.bytes[100:200] + pool.bytes[400:600] + b"\1" * 50 + pool.bytes[999:]
    assert bytes(back.view[:351]) == expected
    driver.calls.clear()
    back.wait()
    assert driver.calls == [], "it is here"
    pool.free()


def test_pieces_of_no_bytes(driver):
    """As what a convolution of one token keeps."""
    pool = Pool()
    back = pool.stream.write_back(10)
    back.gather([(0, pool.address, 0)])
    back.gather([(0, pool.address + 3, 4), (4, pool.address, 0), (4, pool.address + 20, 6)])
    back.bring(10)
    back.wait()
    assert bytes(back.view) == pool.bytes[3:7] + pool.bytes[20:26]
    pool.free()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 60)), min_size=1, max_size=12), st.integers(0, 5))
def test_any_pieces_lie_where_they_are_to_begin(sizes, gap):
    with having(FakeDriver()):
        pool, pieces, expected, at = Pool(160), [], b"", 0
        for first, nbytes in sizes:
            pieces.append((at, pool.address + first, nbytes))
            expected += pool.bytes[first : first + nbytes]
            at += nbytes + gap
            expected += b"?" * gap
        back = pool.stream.write_back(at)
        back.gather(pieces[::-1])
        back.bring(at)
        back.wait()
        found = bytes(back.view[:at])
        assert all(a == b for a, b in zip(found, expected, strict=True) if b != ord("?"))
        pool.free()
        del back


@pytest.mark.parametrize("left_out", ["behind what was gathered", "behind the copy before"])
def test_a_wait_that_is_left_out_is_found(left_out):
    """The tests' driver sees it, whatever the bytes are."""
    with having(FakeDriver()) as driver:
        pool = Pool()
        back, waits = pool.stream.write_back(100), driver.wait_event
        follower = back._copies if left_out == "behind what was gathered" else pool.stream.handle
        driver.wait_event = lambda stream, event: None if stream == follower else waits(stream, event)
        with pytest.raises(Misuse, match="nothing makes the one wait for the other"):
            for _ in range(2):
                back.gather([(0, pool.address, 100)])
                back.bring(100)
            driver.wait(back._copies)
            pool.stream.wait()
            driver.wait(back._copies)
        driver.lost = "enough"


@pytest.mark.parametrize("brought", [False, True])
def test_what_is_dropped_on_the_way_is_given_back(driver, brought):
    pool = Pool()
    back = pool.stream.write_back(100)
    back.gather([(0, pool.address, 100)])
    if brought:
        back.bring(100)
    del back
    gc.collect()
    pool.free()
    pool.stream.wait()
    left = driver.left()
    assert left == {"blocks that a GPU reads": 2, "streams": 1}, "the stage and the stream are the process's"


def test_another_thread_that_comes_while_the_copy_of_a_dropped_one_is_waited_for(driver):
    pool = Pool()
    back, wait = pool.stream.write_back(100), driver.wait
    back.gather([(0, pool.address, 100)])
    back.bring(100)
    copies = back._copies

    def wait_while_another_begins(stream):
        if stream == copies:
            pool.stream.begin()
        wait(stream)

    driver.wait = wait_while_another_begins
    del back
    gc.collect()
    pool.free()
    pool.stream.wait()
    assert driver.left() == {"blocks that a GPU reads": 2, "streams": 1}


@pytest.mark.parametrize("short", ["pinned memory", "memory of the GPU"])
def test_memory_that_is_refused(driver, short):
    budget = MemoryBudget(1000)
    with pytest.raises(OutOfMemoryError, match="a test: 1002 bytes needed"):
        outgoing(501, Device("cuda"), budget, "a test")
    if short == "pinned memory":
        driver.pinned = 400
    nbytes = 500 if short == "pinned memory" else 65 << 20
    with pytest.raises(NoOutgoing, match="for what goes from a GPU to disk"):
        outgoing(nbytes, Device("cuda"), MemoryBudget(1 << 30), "a test")
    gc.collect()
    Device("cuda").stream.wait()
    assert driver.left() == {"streams": 1}
    driver.pinned = 1000
    held = outgoing(500, Device("cuda"), budget, "a test")
    assert budget.available == 0 and len(held.view) == 500
    del held
    gc.collect()
    assert budget.available == 1000


def test_a_gpu_that_is_lost(driver):
    pool = Pool()
    back = pool.stream.write_back(100)
    back.gather([(0, pool.address, 100)])
    back.bring(100)
    driver.lost = "the GPU has fallen off the bus"
    for act in (back.wait, lambda: back.gather([(0, pool.address, 1)]), lambda: back.bring(1)):
        with pytest.raises(DeviceError, match="fallen off the bus"):
            act()


def test_a_stream_that_is_closed_under_it(driver):
    """What was asked for comes; nothing more is."""
    pool = Pool()
    back = pool.stream.write_back(100)
    back.gather([(0, pool.address, 100)])
    back.bring(100)
    pool.stream.close()
    back.wait()
    assert bytes(back.view) == pool.bytes[:100]
    with pytest.raises(DeviceError, match="was closed"):
        back.gather([(0, pool.address, 100)])
    driver.lost = "pinned memory of a closed stream stays until the process ends"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_the_process(driver):
    """It is told so at once, and what the parent asked for comes there."""
    pool = Pool()
    back = pool.stream.write_back(100)
    back.gather([(0, pool.address, 100)])
    back.bring(100)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for act in (back.wait, lambda: back.gather([(0, pool.address, 1)])):
            try:
                act()
            except DeviceError as error:
                said.append(str(error))
        del back
        gc.collect()
        os.write(writing, "\n".join(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    assert len(said) == 2 and all(
        line.startswith("this process was forked from one that used the GPU") for line in said
    )
    back.wait()
    assert bytes(back.view) == pool.bytes[:100]
    pool.free()
