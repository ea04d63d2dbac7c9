"""What of a cache on a GPU goes to disk: no step waits for it, it is what was computed, and failures are misses."""

import errno
import gc
import threading

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from disk_desk import BLOCK, FORMAT, SOON, Desk, found, segments
from gpu_models import DENSE, greedy, load, prompt

from pio.device import Device
from pio.engine import prefix_writes
from pio.engine.prefix_reads import room_bytes
from pio.engine.stored_prefixes import DiskNeeds
from pio.errors import DeviceError
from pio.memory.budget import MemoryBudget
from pio.store import disk_store
from pio.store.disk_store import buffer_bytes
from pio.store.folder import SegmentFolder, prepare

WAITS = {"wait", "await_event", "wait_all"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder, and segments of two blocks in it."""
    monkeypatch.setattr(disk_store, "SEGMENT", 2 * 2 * FORMAT.block_bytes)
    monkeypatch.setattr(disk_store, "LOOK", 0.0)
    monkeypatch.setattr(prefix_writes, "DELAY", 0.0)
    monkeypatch.setattr(prefix_writes, "TOKEN", 1 << 30)  # states are worth it for any prompt
    return prepare(tmp_path / "kept")


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
    held = {**driver.left(), "events": 0}  # the thread that writes has waited for one, or not yet
    assert held == {**before, "events": 0, "blocks that a GPU reads": 4}, "of which two are those that things pass by"
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
    may = threading.Event()

    def full(*_):
        assert may.wait(SOON)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SegmentFolder, "write", full)
    desk = Desk(folder)
    for firsts in ((5, 6), (7, 8)):
        desk.give_back(*firsts)
        desk.kept.write(idle=False)
    may.set()
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
