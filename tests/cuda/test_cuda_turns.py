"""What takes turns in buffers of a GPU: every item is there when work on it begins, and stays until that is done."""

import ctypes
import gc

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver, Misuse
from gpus import having

from pio.device import Device
from pio.errors import OutOfMemoryError

SIZES = (300, 257, 512, 1, 130)


class Desk:
    """Turns over bytes that are told apart by their item, and a place where work puts what it found."""

    def __init__(self, buffers, sizes=SIZES):
        self.stream, self.sizes = Device("cuda").stream, sizes
        self.buffers = [self.stream.allocate(max(sizes)) for _ in range(buffers)]
        self.out = self.stream.allocate(max(sizes))
        self.turns = self.stream.turns(self.buffers, sizes)
        for item, size in enumerate(sizes):
            ctypes.memset(self.turns.image(item), item + 1, size)

    def work(self, item):
        """Read the item where it should be, as a kernel does: asked for, not waited for."""
        self.stream.copy(self.out, self.buffers[item % len(self.buffers)], self.sizes[item])

    def found(self, item):
        memory = ctypes.create_string_buffer(self.sizes[item])
        self.stream.copy_out(ctypes.addressof(memory), self.out, self.sizes[item])
        return memory.raw

    def close(self):
        self.turns.close()
        for address in (*self.buffers, self.out):
            self.stream.drop(address)


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_every_item_is_there_in_its_turn(driver, buffers):
    desk = Desk(buffers)
    for _ in range(3):
        for item, size in enumerate(SIZES):
            desk.turns.enter(item)
            desk.work(item)
            desk.turns.leave(item)
            assert desk.found(item) == bytes([item + 1]) * size
    desk.close()


def test_nobody_waits_and_copies_run_ahead(driver):
    desk = Desk(2)
    for item in range(2):
        desk.turns.enter(item)
        desk.turns.leave(item)
    driver.calls.clear()
    for item in (2, 3, 4, 0, 1):
        desk.turns.enter(item)
        desk.work(item)
        desk.turns.leave(item)
    assert not {"wait", "await_event", "wait_all"} & set(driver.calls)
    assert driver.calls.count("copy_in") == 5  # each was on its way when it was entered; the next ones are by now
    assert desk.found(1) == bytes([2]) * SIZES[1]
    desk.close()


def test_an_item_that_shares_its_buffer_with_nobody_stays(driver):
    desk = Desk(2, SIZES[:3])
    for _ in range(3):
        for item in range(3):
            desk.turns.enter(item)
            desk.work(item)
            desk.turns.leave(item)
            assert desk.found(item) == bytes([item + 1]) * SIZES[item]
    assert driver.calls.count("copy_in") == 1 + 2 * 3 + 1  # the item 1 once; the other two each time, and one ahead
    desk.close()


def test_any_order_finds_what_it_asks_for(driver):
    """As behind a step that failed in the middle, or a warm-up of some layers."""
    desk = Desk(2)
    for item, leaves in ((3, True), (1, False), (4, False), (0, True), (0, True), (2, False), (1, True), (0, False)):
        desk.turns.enter(item)
        desk.work(item)
        if leaves:
            desk.turns.leave(item)
        assert desk.found(item) == bytes([item + 1]) * SIZES[item]
    desk.close()


@pytest.mark.parametrize("buffers", [1, 2])
def test_parts_of_an_item_come_alone(driver, buffers):
    desk = Desk(buffers, (600, 600, 600))
    for item, part in ((0, (0, 256)), (1, (256, 200)), (0, (512, 88)), (2, (0, 600))):
        desk.turns.bring_parts(item, [part])
        desk.stream.copy(desk.out, desk.buffers[item % buffers] + part[0], part[1])
        assert desk.found(item)[: part[1]] == bytes([item + 1]) * part[1]
    desk.turns.enter(1)  # all of it, behind parts of others
    desk.work(1)
    desk.turns.bring_parts(1, [(0, 5)])  # which are there
    assert desk.found(1) == bytes([2]) * 600
    desk.turns.leave(1)
    desk.turns.bring_parts(1, [(7, 3)])  # while another comes there
    desk.stream.copy(desk.out, desk.buffers[1 % buffers] + 7, 3)
    assert desk.found(1)[:3] == bytes([2]) * 3
    desk.close()


def test_items_that_are_not_entered_next_are_left_out(driver):
    desk = Desk(1)
    desk.turns.enter(0)
    desk.turns.leave(0, [1, 2])
    driver.calls.clear()
    desk.turns.enter(3)
    assert "copy_in" not in driver.calls
    desk.turns.leave(3, [0, 1, 2, 4])
    assert "copy_in" not in driver.calls
    desk.work(3)
    assert desk.found(3) == bytes([4]) * SIZES[3]
    desk.close()


@pytest.mark.parametrize("follower", ["work", "copies"])
def test_a_wait_that_is_left_out_is_found(follower):
    """The tests' driver sees it, whatever the bytes are."""
    with having(FakeDriver()) as driver:
        desk = Desk(2)
        copies, waits = desk.turns._copies, driver.wait_event
        left_out = desk.stream.handle if follower == "work" else copies
        driver.wait_event = lambda stream, event: None if stream == left_out else waits(stream, event)
        with pytest.raises(Misuse, match="nothing makes the one wait for the other"):
            for item in range(5):
                desk.turns.enter(item)
                desk.work(item)
                desk.turns.leave(item)
                desk.stream.wait()
                driver.wait(copies)
        driver.wait_event = waits
        driver.lost = "enough"


def test_memory_that_the_system_refuses(driver):
    driver.pinned = sum(SIZES) - 1
    with pytest.raises(OutOfMemoryError, match=r"refused 130 bytes .*cuda:0.*\(pinned memory\).*gpu_memory"):
        Desk(2)
    gc.collect()


def test_what_is_dropped_is_given_back(driver):
    desk = Desk(2)
    desk.turns.enter(0)
    held = desk.buffers, desk.out
    here = desk.stream
    del desk
    gc.collect()
    here.wait()
    assert set(driver.left()) == {"blocks of memory", "streams"}
    for address in (*held[0], held[1]):
        here.drop(address)


def test_another_thread_that_comes_while_copies_of_closed_ones_are_waited_for(driver):
    desk, wait = Desk(1), driver.wait
    desk.turns.enter(0)
    desk.turns.leave(0)
    copies = desk.turns._copies

    def wait_while_another_begins(stream):
        if stream == copies:
            desk.stream.begin()
        wait(stream)

    driver.wait = wait_while_another_begins
    desk.turns.close()
    desk.stream.wait()
    desk.close()
    desk.stream.wait()
    assert driver.left() == {"streams": 1}
