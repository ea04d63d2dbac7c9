"""What leaves a GPU for disk: nobody waits for it but who writes it, and what it came from may change at once."""

import ctypes
import errno
import gc
import os
import random
import threading
from array import array
from types import SimpleNamespace

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver, Misuse
from gpu_models import BLOCK, DENSE, greedy, load, prompt
from gpus import having
from hypothesis import given, settings
from hypothesis import strategies as st

from pio.cache.format import CacheFormat
from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedCache
from pio.cache.recurrent import RecurrentStates
from pio.device import Device
from pio.dtypes import float16
from pio.engine import prefix_writes
from pio.engine.cache_manager import CacheManager
from pio.engine.prefix_reads import room_bytes
from pio.engine.sequence import Sequence
from pio.engine.stored_prefixes import DiskNeeds, DiskOptions, StoredPrefixes
from pio.errors import DeviceError, OutOfMemoryError
from pio.memory.budget import MemoryBudget
from pio.memory.outgoing import NoOutgoing, outgoing
from pio.store import disk_store
from pio.store.disk_store import buffer_bytes
from pio.store.folder import SegmentFolder, prepare

WAITS = {"wait", "await_event", "wait_all"}
FORMAT = CacheFormat.keys_and_values(float16, 1, 6)
SOON = 60.0


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


# The engine, without a model: somebody computes blocks, and gives them back


class Desk:
    """A cache on the GPU, what is known of it, and what of that is on disk."""

    def __init__(self, folder, blocks=8, states=0, budget=None):
        self.device = Device("cuda")
        self.cache = PagedCache(2, BLOCK * blocks, FORMAT, device=self.device)
        if states:
            recurrent = RecurrentStates(1, 4 + states, ((3, 5), (2, 4, 7)), device=self.device)
            self.cache = HybridCache([True, False, True], self.cache, recurrent)
        self.manager = CacheManager(self.cache, 4)
        self.kept = StoredPrefixes(DiskOptions(folder, 1 << 20, b"toy"), self.manager, self.cache, budget)
        self.store = self.kept.store
        self.computed = {}

    def compute(self, first, blocks=1):
        """Return a sequence whose blocks have bytes that only it has; the GPU will write them."""
        sequence = self.admit(first, blocks)
        for i in range(blocks):
            for number, (address, nbytes) in enumerate(self.kept._items.blocks.pieces(sequence.blocks[i])):
                self.write(address, nbytes, first, i, number)
        for number, pool in enumerate(self.kept._items.states if self.cache.state_bytes else ()):
            for address, nbytes in pool.pieces(sequence.slot):
                self.write(address, nbytes, first, 77, number)
        sequence.num_computed = BLOCK * blocks
        self.manager.keep((sequence,))
        return sequence

    def admit(self, first, blocks=1):
        tokens = array("i", [(first + 3 * i) % 97 for i in range(BLOCK * blocks + 1)])
        sequence = Sequence(SimpleNamespace(begin=lambda: None), tokens)
        assert self.manager.admit(sequence, 0)
        return sequence

    def write(self, address, nbytes, *told):
        memory = ctypes.create_string_buffer(random.Random(str(told)).randbytes(nbytes), nbytes)
        self.device.stream.copy_in(address, ctypes.addressof(memory), nbytes)

    def give_back(self, *firsts, blocks=1):
        for first in firsts:
            self.manager.release(self.compute(first, blocks))

    def write_over(self):
        """Do what the next step does: it has other bytes in all blocks and slots."""
        for tensor in self.cache.block_memory():
            self.device.stream.fill(tensor.address, 0xAB, tensor.nbytes)

    def read(self, first, blocks=1):
        """Return how many tokens somebody finds, whose bytes must be those that were computed."""
        sequence = self.admit(first, blocks)
        before = sequence.num_computed
        self.kept.begin(sequence, counted=True)
        while self.kept.reading:
            self.kept.advance()
        for i in range(before // BLOCK, sequence.num_computed // BLOCK):
            for number, (address, nbytes) in enumerate(self.kept._items.blocks.pieces(sequence.blocks[i])):
                memory = ctypes.create_string_buffer(nbytes)
                self.device.stream.copy_out(ctypes.addressof(memory), address, nbytes)
                assert memory.raw == random.Random(str((first, i, number))).randbytes(nbytes)
        tokens = sequence.num_computed
        self.manager.release(sequence)
        return tokens

    def written(self):
        assert self.store.wait(SOON)

    def close(self):
        self.kept.finish(())
        self.cache.free()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder, and segments of two blocks in it."""
    monkeypatch.setattr(disk_store, "SEGMENT", 2 * 2 * FORMAT.block_bytes)
    monkeypatch.setattr(disk_store, "LOOK", 0.0)
    monkeypatch.setattr(prefix_writes, "DELAY", 0.0)
    monkeypatch.setattr(prefix_writes, "TOKEN", 1 << 30)  # states are worth it for any prompt
    return prepare(tmp_path / "kept")


def found(folder, *firsts, **options):
    """Return what a process finds later."""
    desk = Desk(folder)
    try:
        return [desk.read(first, **options) for first in firsts]
    finally:
        desk.close()


def segments(folder):
    return list(folder.glob("*.safetensors"))


class Calls:
    """Calls of the driver, with the threads that made them."""

    def __init__(self, driver, monkeypatch):
        self._made, before = list[tuple[str, str]](), driver._say

        def say(call):
            before(call)
            self._made.append((threading.current_thread().name, call))

        monkeypatch.setattr(driver, "_say", say)

    def of(self, thread):
        return [call for name, call in self._made if name == thread]


def test_the_thread_of_the_engine_waits_for_nothing(driver, folder, monkeypatch):
    """Blocks are written over as soon as they were asked for, and are read back as they were."""
    desk = Desk(folder)
    sequences = [desk.compute(first) for first in (5, 6, 7, 8)]
    calls = Calls(driver, monkeypatch)
    for sequence in sequences[:2]:
        desk.manager.release(sequence)
    desk.kept.write(idle=False)
    for sequence in sequences[2:]:
        desk.manager.release(sequence)
    desk.kept.write(idle=True)
    me = threading.current_thread().name
    desk.write_over()
    assert not WAITS & set(calls.of(me))
    assert (calls.of(me).count("copy_all"), calls.of(me).count("copy_out")) == (2, 2), "two blocks by each call"
    for _ in range(2):
        desk.written()
    assert WAITS & set(calls.of("pio-store")) == {"await_event"}
    desk.close()
    assert found(folder, 5, 6, 7, 8) == [BLOCK] * 4


def test_a_chain_and_its_states_come_back(driver, folder):
    desk = Desk(folder, states=2)
    desk.give_back(5, blocks=2)
    desk.kept.write(idle=True)
    desk.write_over()
    desk.close()
    again = Desk(folder, states=2)
    assert again.read(5, blocks=2) == 2 * BLOCK
    again.close()


def blocked(monkeypatch):
    """Return what lets segments be written, which wait until then."""
    may, write = threading.Event(), SegmentFolder.write

    def wait_and_write(*told):
        assert may.wait(SOON)
        return write(*told)

    monkeypatch.setattr(SegmentFolder, "write", wait_and_write)
    return may


def test_a_slow_disk_holds_nobody_up(driver, folder, monkeypatch):
    """Two buffers are on their way; what comes then waits in the cache, and memory does not grow."""
    may, desk = blocked(monkeypatch), Desk(folder)
    before = driver.left()
    for firsts in ((5, 6), (7, 8), (9, 10)):
        desk.give_back(*firsts)
        desk.kept.write(idle=False)
    held = driver.left()
    assert held["events"] == 2 and {**held, "events": 0} == {**before, "events": 0, "blocks that a GPU reads": 4}
    assert desk.kept._writes and desk.kept.rest() is None, "whoever waits is woken"
    assert driver.calls.count("copy_all") == 2
    may.set()
    desk.written()
    desk.kept.write(idle=False)
    desk.write_over()
    assert driver.calls.count("copy_all") == 3 and not desk.kept._writes
    desk.close()
    assert found(folder, 5, 6, 7, 8, 9, 10) == [BLOCK] * 6


def test_what_is_evicted_before_there_is_a_segment_is_written_too(driver, folder):
    desk = Desk(folder, blocks=3)
    desk.give_back(5)
    desk.kept.write(idle=False)
    assert driver.calls.count("copy_all") == 0
    sequence = desk.compute(6, 2)  # which takes the two that are empty
    desk.manager.release(sequence)
    other = desk.compute(40, 2)  # and now those that are known
    desk.write_over()
    desk.kept.write(idle=False)
    desk.manager.release(other)
    desk.close()
    assert found(folder, 5) == [BLOCK]


def test_what_is_evicted_while_all_buffers_are_written_is_passed_over(driver, folder, monkeypatch):
    may, desk = blocked(monkeypatch), Desk(folder, blocks=6)
    for firsts in ((5, 6), (7, 8), (9, 10)):
        desk.give_back(*firsts)
        desk.kept.write(idle=False)
    assert driver.calls.count("copy_all") == 2
    sequence = desk.compute(40, 5)  # all but one
    desk.write_over()
    assert driver.calls.count("copy_all") == 2
    may.set()
    desk.written()
    desk.written()
    desk.kept.write(idle=True)
    desk.manager.release(sequence)
    desk.kept.clear()
    desk.close()
    assert sum(found(folder, 5, 6, 7, 8, 9, 10)) in (4 * BLOCK, 5 * BLOCK)


@pytest.mark.parametrize("lost", ["before it is gathered", "behind the copy"])
def test_a_gpu_that_is_lost_on_the_way(driver, folder, monkeypatch, caplog, lost):
    desk = Desk(folder)
    desk.give_back(5, 6)

    def lose():
        driver.lost = "the GPU has fallen off the bus"

    if lost == "behind the copy":
        write = desk.store._writer.write
        monkeypatch.setattr(desk.store._writer, "write", lambda *told, **options: (lose(), write(*told, **options)))
    else:
        lose()
    desk.kept.write(idle=False)
    if lost == "behind the copy":
        desk.written()
        assert not desk.store.keeps
    assert "is not kept on disk, for it cannot be read" in caplog.text and "fallen off the bus" in caplog.text
    assert not desk.kept._writes and not segments(folder)
    desk.kept.write(idle=True)
    desk.kept.finish(())
    assert not segments(folder)


def test_a_stream_that_is_closed_under_the_engine(driver, folder, caplog):
    desk = Desk(folder)
    desk.give_back(5, 6)
    desk.device.stream.close()
    desk.kept.write(idle=False)
    assert "is not kept on disk, for it cannot be read: the stream of cuda:0 was closed" in caplog.text
    desk.kept.finish(())
    assert not segments(folder)
    driver.lost = "pinned memory of a closed stream stays until the process ends"


def test_a_disk_that_is_full(driver, folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SegmentFolder, "write", full)
    desk = Desk(folder)
    for firsts in ((5, 6), (7, 8)):
        desk.give_back(*firsts)
        desk.kept.write(idle=False)
    desk.written()
    desk.written()
    assert not desk.store.keeps and "No space left" in caplog.text
    desk.give_back(9, 10)
    desk.kept.write(idle=True)
    assert desk.read(5) == BLOCK, "memory has it"
    desk.close()


def test_memory_that_cannot_be_pinned_is_a_miss_that_is_told(driver, folder, caplog):
    desk = Desk(folder)
    desk.give_back(5)
    desk.close()
    driver.pinned = 100
    desk = Desk(folder)
    assert "what is in" in caplog.text and "nothing is added: the system refused" in caplog.text
    assert not desk.store.keeps and desk.store.nbytes == 0
    driver.pinned = 1 << 40  # what goes there passes by way of such memory
    assert desk.read(5) == BLOCK
    desk.give_back(6)
    desk.kept.write(idle=True)
    desk.close()
    assert found(folder, 6) == [0]


def test_a_damaged_segment_is_a_miss(driver, folder):
    desk = Desk(folder)
    desk.give_back(5, 6)
    desk.close()
    (file,) = segments(folder)
    held = bytearray(file.read_bytes())
    held[-1] ^= 4
    file.write_bytes(held)
    assert found(folder, 5) == [BLOCK]
    assert found(folder, 6) == [0]


def test_what_is_on_the_way_as_the_model_is_closed(driver, folder):
    desk = Desk(folder)
    running = desk.compute(5, 2)
    desk.give_back(6)
    desk.kept.write(idle=True)
    desk.kept.finish([running])
    desk.write_over()
    assert found(folder, 6) == [BLOCK] and found(folder, 5, blocks=2) == [2 * BLOCK]


def test_memory_counts_and_is_given_back(driver, folder):
    gc.collect()
    Device("cuda").stream.wait()
    before = driver.left()
    budget = MemoryBudget(1 << 22)
    desk = Desk(folder, budget=budget)
    needs = DiskNeeds.of(desk.cache, on_gpu=True)
    assert budget.used == sum(needs) == desk.kept.nbytes == desk.store.nbytes + room_bytes(desk.kept._items)
    assert needs.there == buffer_bytes(desk.cache.block_bytes) == 2 * 2 * desk.cache.block_bytes
    desk.give_back(5, 6)
    desk.kept.write(idle=False)
    desk.close()
    del desk
    gc.collect()
    assert budget.used == 0
    Device("cuda").stream.wait()
    assert driver.left() == {**before, "blocks that a GPU reads": 2}


# A model


def test_a_gpu_that_is_lost_before_a_prompt_is_on_disk(driver, tmp_path, caplog, monkeypatch):
    def lose(*_):
        driver.lost = "the GPU has fallen off the bus"
        raise DeviceError(driver.lost)

    monkeypatch.setattr(driver, "copy_all", lose)
    with load(DENSE, "cpu") as here:
        model = load(DENSE, prefix_cache_path=tmp_path / "kept")
        ids = prompt(model, 3, 40)
        wanted = greedy(model, ids, 1).token_ids
        model.cleanup()
        assert "is not kept on disk" in caplog.text and "fallen off the bus" in caplog.text
        assert greedy(here, ids, 1).token_ids == wanted, "the CPU goes on"
        assert not segments(tmp_path / "kept")
