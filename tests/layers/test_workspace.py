"""The memory that blocks compute in: asked for by shape, made once."""

import pytest

from pio.device import Device
from pio.dtypes import int32
from pio.errors import OutOfMemoryError, TensorError
from pio.layers.workspace import KEPT, Workspace
from pio.memory.budget import MemoryBudget
from pio.tensor import Tensor


def test_rooms_of_one_name_are_the_same_memory_as_large_as_the_largest():
    space = Workspace(5, device=Device("cpu", 3))
    narrow = space.rooms("feed", {"up": (7,), "down": (2, 3)}, dict)
    wide = space.rooms("feed", {"up": (40,), "down": (2, 3)}, dict)
    other = space.rooms("heads", {"up": (9,)}, dict)
    assert space.nbytes == 832 + 128 + 192  # 5 x 40, 5 x 6 and 5 x 9 numbers, in whole lines of 64 bytes
    found, wider, heads = narrow(4), wide(2), other(5)
    assert (found["up"].shape, found["down"].shape, wider["up"].shape) == ((4, 7), (4, 2, 3), (2, 40))
    assert found["up"].address == wider["up"].address and found["down"].address == wider["down"].address
    assert found["up"].is_contiguous and found["up"].device.threads == 3
    starts = sorted((found["up"].address, found["down"].address, heads["up"].address))
    assert [at - starts[0] for at in starts] == [0, 832, 960] and starts[0] % 64 == 0
    assert space.storage.nbytes == space.nbytes


def test_blocks_that_ask_for_the_same_share_their_views():
    space = Workspace(30)
    one, other = (space.rooms("feed", {"up": (3,)}, dict) for _ in range(2))
    assert one is other and one(2) is one(2)
    first = one(1)
    for tokens in range(2, KEPT + 2):
        one(tokens)
    assert one(1) is not first and one(KEPT) is one(KEPT)


def test_what_no_token_has_and_what_never_changes():
    def begin(made):
        made["ones"].fill_(1.0)
        made["places"].copy_(Tensor.from_list([[t] for t in range(6)], int32))

    space = Workspace(6)
    shapes, kinds = {"ones": (1,), "places": (1,)}, {"places": int32}
    rooms = space.rooms("gate", shapes, dict, fixed={"scratch": (4, 5)}, kinds=kinds, begin=begin)
    made = rooms(2)
    assert (made["ones"].tolist(), made["places"].tolist()) == ([[1.0]] * 2, [[0], [1]])
    assert made["scratch"].shape == (4, 5) and rooms(6)["scratch"].address == made["scratch"].address
    assert rooms(6)["places"].tolist() == [[t] for t in range(6)]


def test_memory_counts_and_is_made_once():
    budget = MemoryBudget(200)
    space = Workspace(3, budget)
    space.rooms("feed", {"up": (16,)}, dict)
    assert (space.nbytes, budget.used) == (192, 0)
    assert space.storage is space.storage and budget.used == 192
    with pytest.raises(TensorError, match="rooms for more asked for behind the first step"):
        space.rooms("more", {"up": (1,)}, dict)
    rooms = Workspace(3, budget := MemoryBudget(200)).rooms("feed", {"up": (16,)}, dict)
    assert rooms(2)["up"].shape == (2, 16) and budget.used == 192
    del rooms
    assert budget.used == 0  # at once, without the collector
    small = Workspace(4, MemoryBudget(200))
    small.rooms("feed", {"up": (16,)}, dict)
    with pytest.raises(OutOfMemoryError, match=r"the activations \(fewer with prefill_chunk"):
        _ = small.storage
