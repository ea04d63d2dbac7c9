"""What caches on a GPU keep of sequences: copies of blocks and states, and their bytes on the way out and back in."""

from array import array

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from pio.cache.batch import Batch
from pio.cache.format import CacheFormat
from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedCache
from pio.cache.pool_bytes import pool_bytes
from pio.cache.recurrent import RecurrentStates
from pio.device import Device
from pio.dtypes import float16
from pio.errors import DeviceError
from pio.memory.budget import MemoryBudget
from pio.memory.outgoing import outgoing
from pio.tensor import Tensor

SHAPES = (3, 5), (2, 4, 7)


def make(device, blocks=3):
    """Two layers that attend and one that recurs, four slots."""
    paged = PagedCache(2, 32 * blocks, CacheFormat.keys_and_values(float16, 1, 6), device=device)
    return HybridCache([True, False, True], paged, RecurrentStates(1, 4, SHAPES, device=device))


def fill(tensors):
    """Have every element of all tensors another value that its type holds."""
    for i, tensor in enumerate(tensors):
        values = [float((7 * i + j) % 1021) for j in range(tensor.size)]
        tensor.copy_(Tensor.from_list(values, tensor.dtype).reshape(tensor.shape))


def lists(tensors):
    return [tensor.tolist() for tensor in tensors]


def test_blocks_and_states_are_copied_as_on_the_cpu(driver):
    device, found = Device("cuda"), []
    for cache in (make(None), make(device)):
        fill([*cache.block_memory(), *cache.state_memory()])
        cache.copy_block(2, 0)
        cache.copy_states(1, 3)
        taken = cache.snapshot(0, 9)
        assert taken.states.device == cache.block_memory()[0].device
        cache.restore(2, taken)
        found.append((lists(cache.block_memory()), lists(cache.state_memory())))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["block_memory", "state_memory"])
def test_bytes_go_out_and_in_where_they_are_and_nowhere_else(driver, name):
    here, there = (getattr(make(device), name)() for device in (None, Device("cuda")))
    fill(here)
    fill(there)
    own, copied = pool_bytes(here), pool_bytes(there)
    assert own.nbytes == copied.nbytes == sum(t.nbytes // t.shape[0] for t in here)
    out = [gone_out(pool, 1, tensors[0].device) for pool, tensors in ((own, here), (copied, there))]
    assert out[0] == out[1] and any(out[1])

    spare = memoryview(bytearray(b"\xee" * (own.nbytes + 3)))
    rooms = copied.rooms(2, spare)
    at = 0
    for room in rooms:
        room[:] = out[0][at : at + len(room)]
        at += len(room)
    assert spare == out[0] + b"\xee" * 3
    copied.put(2, rooms)
    for room in rooms:  # they may be used for something else at once
        room[:] = b"\xff" * len(room)
    assert all(t[2].tolist() == t[1].tolist() and t[2].tolist() != t[0].tolist() for t in there)
    assert all(lists([t[0], t[1]]) == lists([h[0], h[1]]) for t, h in zip(there, here, strict=True))


def gone_out(pool, index, device):
    """Bytes of a block, behind three others of their buffer."""
    buffer, pieces, at = outgoing(pool.nbytes + 3, device, None, "a test"), [], 3
    for address, nbytes in pool.pieces(index):
        pieces.append((at, address, nbytes))
        at += nbytes
    buffer.gather(pieces)
    buffer.bring(at)
    buffer.wait()
    return bytes(buffer.view[3:])


def test_bytes_that_go_in_are_waited_for_by_nobody(driver):
    pool = pool_bytes(make(Device("cuda")).block_memory())
    rooms = pool.rooms(0, memoryview(bytearray(pool.nbytes)))
    driver.calls.clear()
    pool.put(1, rooms)
    assert driver.calls.count("copy_in") == 4 and "wait" not in driver.calls


def test_a_freed_cache_gives_nothing_out(driver):
    cache = make(Device("cuda"))
    pools = [pool_bytes(cache.block_memory()), pool_bytes(cache.state_memory())]
    cache.free()
    for pool in pools:
        with pytest.raises(Exception, match="was freed"):
            pool.pieces(0)
        with pytest.raises(Exception, match="was freed"):
            pool.put(0, pool.rooms(0, memoryview(bytearray(pool.nbytes))))


def test_rows_that_are_placed_lie_where_the_batch_does(driver):
    batch = Batch(4, 1, 1, 1, device=Device("cuda"))
    batch.add(array("i", [1, 2, 3]), 0, [0], 1)
    with pytest.raises(DeviceError, match=r"rows.to\('cuda:0'\)"):
        batch.place(0, Tensor.zeros((2, 6)))
    rows = Tensor.zeros((2, 6), device="cuda")
    batch.place(1, rows)
    batch.send()
    assert batch.embeddings.tolist() == [0, rows.address, rows.address + 24, 0]


def test_of_a_batch_no_more_is_sent_than_holds(driver, monkeypatch):
    device, sent = Device("cuda"), []
    copy_in = device.stream.copy_in
    monkeypatch.setattr(device.stream, "copy_in", lambda *given: sent.append(given[2]) or copy_in(*given))
    batch = Batch(5, 40, 3000, 2, axes=2, levels=3, device=device)
    batch.add(array("i", [4, 5]), 31, array("i", range(7, 3007)), 1, 6)
    batch.add(array("i", [8, 9, 2]), 0, array("i", [1, 2, 3]), 1, 2)
    batch.send()
    assert sent == [sent[0]] and 2 * 12000 <= sent[0] < 2 * 12000 + 4000
    found = [batch.tokens, batch.past[:2], batch.slots[:2], batch.starts[:3], batch.output_rows, batch.rotary_positions]
    wanted = [[4, 5, 8, 9, 2], [31, 0], [6, 2], [0, 2, 5], [1, 4], [[31, 32, 0, 1, 2]] * 2]
    assert [tensor.tolist() for tensor in found] == wanted
    assert batch.block_tables[0].tolist() == list(range(7, 3007)) and batch.block_tables[1, :3].tolist() == [1, 2, 3]
    assert batch.record.tolist()[0] == 2


def test_the_memory_of_a_cache_counts_and_comes_back(driver):
    budget = MemoryBudget(1 << 20)
    cache = PagedCache(2, 64, CacheFormat.keys_and_values(float16, 1, 6), device=Device("cuda"), budget=budget)
    assert budget.used == cache.nbytes
    cache.free()
    assert budget.used == 0
