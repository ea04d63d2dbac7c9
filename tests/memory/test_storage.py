"""Storage over own and foreign memory."""

import copy
import gc
import mmap
import pickle
import weakref
from array import array

import pytest

from pio.errors import TensorError
from pio.memory.allocation import allocated_bytes
from pio.memory.storage import BufferHold, Storage


def settled_bytes():
    gc.collect()  # what earlier tests left in cycles must not vanish during this one
    return allocated_bytes()


def test_foreign_memory_is_shared_not_copied_and_not_counted():
    before = settled_bytes()
    source = bytearray(range(10, 23))
    storage = Storage.of(source)
    assert (storage.nbytes, storage.readonly) == (13, False)
    storage.memoryview()[4] = 99
    assert source[4] == 99
    source[5] = 98
    assert storage.memoryview()[5] == 98
    assert allocated_bytes() == before


def test_a_wrapped_buffer_cannot_move_until_it_is_let_go():
    source = bytearray(8)
    storage = Storage.of(source)
    with pytest.raises(BufferError):
        source.extend(bytes(1000))
    del storage
    source.extend(bytes(1000))
    assert len(source) == 1008


def test_a_mapping_cannot_be_closed_under_a_storage(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(7)) * 911)
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    storage = Storage.of(mapping)
    assert storage.readonly and storage.memoryview()[5000] == 5000 % 7
    with pytest.raises(BufferError):
        mapping.close()
    del storage
    mapping.close()


def test_read_only_memory_gives_read_only_views():
    view = Storage.of(b"abcde").memoryview()
    assert view.readonly and bytes(view) == b"abcde"
    with pytest.raises(TypeError):
        view[0] = 1


def test_views_keep_the_storage_alive():
    storage = Storage.allocate(9)
    dead = weakref.ref(storage)
    view = storage.memoryview(storage.address + 2, 5)
    del storage
    gc.collect()
    assert dead() is not None and view.nbytes == 5
    del view
    assert dead() is None


def test_the_owner_of_foreign_memory_dies_with_the_storage():
    class Owner(bytearray):
        pass

    owner = Owner(11)
    dead = weakref.ref(owner)
    storage = Storage.of(owner)
    del owner
    assert dead() is not None
    del storage
    assert dead() is None


def test_any_owner_can_vouch_for_an_address():
    values = array("i", [3, 1, 4])
    address, length = values.buffer_info()
    storage = Storage(address, length * values.itemsize, values, readonly=True)
    assert storage.memoryview().cast("i").tolist() == [3, 1, 4]
    assert repr(storage) == f"Storage(12 bytes at {address:#x}, readonly)"


@pytest.mark.parametrize("source", [3, "text", None, [1, 2]])
def test_objects_without_a_buffer_are_refused(source):
    with pytest.raises(TensorError, match=f"cannot read a {type(source).__name__} as a buffer"):
        BufferHold(source)


def test_gaps_are_refused():
    with pytest.raises(TensorError, match="not contiguous"):
        Storage.of(memoryview(bytearray(9))[::2])


def test_a_released_view_is_refused():
    view = memoryview(bytearray(4))
    view.release()
    with pytest.raises(TensorError, match="released"):
        BufferHold(view)


def test_a_storage_cannot_be_pickled_or_copied():
    storage = Storage.allocate(3)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TensorError, match="pickle"):
            attempt(storage)
