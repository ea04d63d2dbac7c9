"""Allocation, accounting and budgets."""

import gc
import threading
from pathlib import Path

import pytest

from pio.dtypes import bfloat16, float32, int8
from pio.errors import ConfigError, OutOfMemoryError
from pio.memory.allocation import Allocation, allocated_bytes
from pio.memory.arena import Arena
from pio.memory.budget import MemoryBudget
from pio.memory.sizes import format_bytes
from pio.memory.storage import Storage
from pio.tensor import Tensor

MIB = 1 << 20


def settled_bytes():
    gc.collect()  # what earlier tests left in cycles must not vanish during this one
    return allocated_bytes()


@pytest.mark.parametrize("nbytes", [0, 1, 63, 65, 4097, MIB - 1, MIB, 2 * MIB, 3 * MIB + 5])
def test_an_allocation_is_zeroed_aligned_and_counted(nbytes):
    before = settled_bytes()
    memory = Allocation(nbytes)
    assert memory.address % 64 == 0
    assert nbytes < 2 * MIB or memory.address % (2 * MIB) == 0
    assert allocated_bytes() == before + nbytes
    data = Storage(memory.address, nbytes, memory).memoryview()
    assert data.nbytes == nbytes and bytes(data).count(0) == nbytes
    if nbytes:
        data[0], data[-1] = 7, 9  # both ends are ours to write
    del data, memory
    assert allocated_bytes() == before


def resident_at(address):
    """Bytes in memory of the mapping that holds an address; 0 where nothing is mapped."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        span, *rest = line.split()
        if "-" in span and len(rest) > 3:
            first, last = (int(end, 16) for end in span.split("-"))
            inside = first <= address < last
        elif inside and span == "Rss:":
            return int(rest[0]) * 1024
    return 0


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_big_memory_returns_to_the_system_with_the_last_reference():
    before = settled_bytes()
    tensor = Tensor.full((48, MIB), 1, int8)
    middle = tensor.address + 24 * MIB
    view = tensor[5:7]
    assert resident_at(middle) >= 48 * MIB
    del tensor
    assert resident_at(middle) >= 48 * MIB  # the view still needs it
    assert view.tolist()[1][:3] == [1, 1, 1]
    del view
    assert resident_at(middle) == 0
    assert allocated_bytes() == before


@pytest.mark.parametrize("shape", [(1 << 50,), (1 << 70,), (1 << 40, 1 << 40)])
def test_what_the_system_refuses_is_an_error_with_the_size(shape):
    before = settled_bytes()
    with pytest.raises(OutOfMemoryError, match=rf"\({4 * shape[0] * (shape[1] if len(shape) > 1 else 1)} bytes\)"):
        Tensor.empty(shape)
    assert allocated_bytes() == before


def test_a_negative_size_is_refused():
    before = settled_bytes()
    for attempt in (Allocation, Storage.allocate, Arena):
        with pytest.raises(ConfigError, match="-5 bytes"):
            attempt(-5)
    assert allocated_bytes() == before


def test_accounting_survives_many_threads():
    before = settled_bytes()
    failures = []

    def work(seed):
        kept = []
        for i in range(200):
            kept.append(Tensor.zeros((seed + 3, i % 7)))
            if i % 3 == 0:
                kept.pop(0)
            if allocated_bytes() < before:
                failures.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert allocated_bytes() == before


def test_a_budget_names_what_did_not_fit():
    budget = MemoryBudget(1000)
    budget.reserve(600, "the weights")
    with pytest.raises(OutOfMemoryError, match=r"the KV cache: 401 bytes needed.*1000 bytes.* 600 bytes are in use"):
        budget.reserve(401, "the KV cache")
    assert (budget.used, budget.available, budget.limit) == (600, 400, 1000)
    budget.reserve(400, "the KV cache")
    budget.release(600)
    assert (budget.used, budget.available) == (400, 600)
    assert repr(budget) == "MemoryBudget(used=400, limit=1000)"


@pytest.mark.parametrize("misuse", [lambda b: b.release(1), lambda b: b.release(-1), lambda b: b.reserve(-1, "x")])
def test_a_budget_refuses_nonsense(misuse):
    budget = MemoryBudget(10)
    with pytest.raises(ConfigError):
        misuse(budget)
    assert budget.used == 0
    with pytest.raises(ConfigError, match="-1"):
        MemoryBudget(-1)


def test_storage_charges_its_budget_while_it_lives():
    budget = MemoryBudget(1000)
    storage = Storage.allocate(700, budget=budget, what="scratch")
    view = storage.memoryview()
    with pytest.raises(OutOfMemoryError, match="more scratch"):
        Storage.allocate(301, budget=budget, what="more scratch")
    assert budget.used == 700
    del storage
    assert budget.used == 700  # the view keeps the memory
    del view
    assert budget.used == 0


def test_a_refused_allocation_gives_its_budget_back():
    budget = MemoryBudget(1 << 60)
    with pytest.raises(OutOfMemoryError):
        Storage.allocate(1 << 55, budget=budget)
    assert budget.used == 0


def test_a_budget_is_exact_between_threads():
    budget = MemoryBudget(90)
    granted = []

    def work():
        for _ in range(50):
            try:
                budget.reserve(7, "a piece")
            except OutOfMemoryError:
                continue
            granted.append(7)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == budget.used == 84


def test_an_arena_cuts_aligned_pieces_and_takes_them_back():
    arena = Arena(1024)
    first = arena.take((3, 5), float32)
    second = arena.take((7,), bfloat16)
    assert first.address == arena.storage.address
    assert second.address == first.address + 64
    assert arena.used == 64 + 14
    assert (first.strides, second.strides) == ((5, 1), (1,))
    first.fill_(2.5)
    second.fill_(-1)
    assert first.tolist() == [[2.5] * 5] * 3
    arena.reset()
    assert arena.used == 0 and arena.take((2,)).address == first.address


def test_a_full_arena_says_so_and_stays_usable():
    budget = MemoryBudget(2000)
    arena = Arena(256, budget=budget, what="activations")
    arena.take((32,))
    with pytest.raises(OutOfMemoryError, match=r"128 bytes left.*float32 tensor of shape \(33,\)"):
        arena.take((33,))
    assert arena.take((32,)).size == 32
    assert arena.used == arena.capacity == 256
    assert arena.take((0,)).size == 0
    assert budget.used == 256
    assert repr(arena) == "Arena(used=256, capacity=256)"


@pytest.mark.parametrize(
    ("nbytes", "words"), [(17, "17 bytes"), (1536, "1.5 KiB (1536 bytes)"), (3 << 30, "3 GiB (3221225472 bytes)")]
)
def test_sizes_in_words(nbytes, words):
    assert format_bytes(nbytes) == words
