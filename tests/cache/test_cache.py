"""What every cache offers to the engine, whatever its layers keep."""

import importlib
import random

import pytest

import pio
from pio.cache.format import CacheFormat
from pio.cache.hybrid import HybridCache
from pio.cache.latent import PagedLatentCache
from pio.cache.paged import PagedCache, PagedKVCache
from pio.cache.protocol import Cache, check_offered
from pio.cache.recurrent import RecurrentStates
from pio.device import Device
from pio.dtypes import dtype
from pio.memory.budget import MemoryBudget
from pio.ops import Pages
from pio.ops.pages import check_pages
from pio.tensor import Tensor

FORMATS = "float32", "float16", "bfloat16", "int8"
BLOCKS = 5
STATES = ((3, 5), (2, 4, 7))


def keys_and_values(kind):
    return PagedCache(2, 32 * BLOCKS - 3, CacheFormat.keys_and_values(dtype(kind), 3, 20))


def latents(kind):
    return PagedCache(3, 32 * BLOCKS, CacheFormat.latents(dtype(kind), 40, 6))


def hybrid(kind):
    return HybridCache([False, True, True, False, False], keys_and_values(kind), RecurrentStates(3, 4, STATES))


def fill(cache, layers):
    """Write bytes that differ from place to place; return the tensors."""
    rng = random.Random(7)
    found = []
    for index in layers:
        kept = cache.layer(index)
        for tensor in kept if isinstance(kept, tuple) else (kept,):
            flat = tensor.reshape(-1)
            values = [rng.randrange(100) for _ in range(flat.size)]
            flat.copy_(Tensor.from_list(values, "uint8" if tensor.dtype is pio.uint8 else "float32"))
            found.append(tensor)
    return found


def rows(tensors):
    """The bytes of each tensor along its first axis: of each block, or of each slot."""
    for tensor in tensors:
        data, count = tensor.memoryview().tobytes(), tensor.shape[0]
        size = len(data) // count
        yield [data[i * size : (i + 1) * size] for i in range(count)]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("make", "layers"), [(keys_and_values, range(2)), (latents, range(3)), (hybrid, (1, 2))])
def test_a_block_is_copied_in_all_layers_and_nothing_else_is(make, layers, kind):
    cache = make(kind)
    tensors = fill(cache, layers)
    before = list(rows(tensors))
    assert len({row for found in before for row in found}) == BLOCKS * len(before), "blocks look alike"
    assert cache.num_blocks == BLOCKS
    assert sum(len(found[0]) for found in before) == cache.block_bytes == len(layers) * cache.format.block_bytes
    cache.copy_block(3, 1)
    expected = [[found[0], found[3], *found[2:]] for found in before]
    assert list(rows(tensors)) == expected


@pytest.mark.parametrize("make", [keys_and_values, latents, hybrid])
def test_what_does_not_exist_cannot_be_copied(make):
    cache = make("float16")
    for source, target in ((-1, 0), (0, BLOCKS), (BLOCKS, 0)):
        with pytest.raises(pio.CapacityError, match=f"does not exist: this cache has {BLOCKS}"):
            cache.copy_block(source, target)
    cache.free()
    with pytest.raises(pio.PioError, match="this cache was freed"):
        cache.copy_block(0, 1)


@pytest.mark.parametrize("make", [keys_and_values, latents])
def test_pages_keep_nothing_beside_their_blocks(make):
    cache = make("float16")
    tensors = fill(cache, range(2))
    before = list(rows(tensors))
    taken = cache.snapshot(0, 17)
    assert (taken.length, taken.nbytes, cache.state_bytes) == (17, 0, 0)
    cache.restore(2, taken)
    cache.copy_states(0, 3)
    for length in (16, 5, 0):
        cache.truncate(0, length)
    assert list(rows(tensors)) == before


def test_states_go_to_other_slots_and_back_to_snapshots_only():
    cache = hybrid("float16")
    tensors = fill(cache, (0, 3, 4))
    before = list(rows(tensors))
    taken = cache.snapshot(2, 9)
    assert (taken.length, taken.nbytes) == (9, sum(len(found[2]) for found in before))
    cache.copy_states(0, 2)
    assert list(rows(tensors)) == [[a, b, a, d] for a, b, _, d in before]
    cache.restore(3, taken)
    assert list(rows(tensors)) == [[a, b, a, c] for a, b, c, _ in before]
    cache.truncate(3, 0)  # a first token finds zeros, whatever is there
    with pytest.raises(pio.CapacityError, match="cannot go back to 4 tokens; restore a snapshot"):
        cache.truncate(3, 4)
    with pytest.raises(pio.CapacityError, match="slot 4 does not exist"):
        cache.copy_states(0, 4)
    with pytest.raises(pio.ConfigError, match="a snapshot of 0 layers"):
        cache.restore(3, keys_and_values("float16").snapshot(3, 9))
    with pytest.raises(pio.ConfigError, match="a snapshot of 3 layers with states does not fit this cache"):
        keys_and_values("float16").restore(3, taken)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("make", "layers"), [(keys_and_values, range(2)), (latents, range(3)), (hybrid, (1, 2))])
def test_what_a_layer_keeps_says_its_format(make, layers, kind):
    cache = make(kind)
    for index in layers:
        kept = cache.layer(index)
        for pages in kept if isinstance(kept, tuple) else (kept,):
            assert pages.format == kind == cache.format.dtype.name
            assert type(pages[1]) is type(pages.reshape(-1)) is type(pages.clone()) is Tensor


@pytest.mark.parametrize("kind", FORMATS)
def test_caches_that_are_made_by_their_sizes(kind):
    budget = MemoryBudget(1 << 20)
    pages = PagedKVCache(2, 32 * BLOCKS - 3, 3, 20, dtype(kind), budget=budget)
    assert budget.used == pages.nbytes
    of_latents = PagedLatentCache(3, 32 * BLOCKS, 40, 6, dtype(kind), device=Device("cpu", 3))
    assert of_latents.layer(2).device.threads == 3
    for made, same in ((pages, keys_and_values(kind)), (of_latents, latents(kind))):
        assert (made.format, made.nbytes, made.num_blocks) == (same.format, same.nbytes, BLOCKS)
        assert [[pool.shape for pool in pools] for pools in made.pools] == [[p.shape for p in ps] for ps in same.pools]


def test_the_protocol_goes_by_its_old_name_too():
    assert importlib.import_module("pio.cache.kind").Cache is Cache


def test_pages_are_the_same_memory():
    tensor = Tensor.zeros((3, 5))
    pages = Pages.of(tensor, "int8")
    pages[1].fill_(7.0)
    assert tensor.tolist() == [[0.0] * 5, [7.0] * 5, [0.0] * 5]
    assert (pages.format, Pages.of(tensor[:, 1:], "float16").shape, Pages.zeros((2,)).format) == (
        "int8",
        (3, 4),
        "float32",
    )


@pytest.mark.parametrize("make", [CacheFormat.keys_and_values, CacheFormat.latents])
def test_a_format_says_what_is_stored(make):
    for kind, itemsize in (("float32", 4), ("float16", 2), ("bfloat16", 2)):
        found = make(dtype(kind), 3, 32)
        assert found.dtype is found.stored is dtype(kind)
        assert found.block_bytes == 32 * found.position_bytes >= 32 * 2 * 32 * itemsize
    eight = make(dtype("int8"), 3, 32)
    assert (eight.dtype, eight.stored) == (dtype("int8"), dtype("uint8"))
    with pytest.raises(pio.TensorError, match="cannot be int32, expected one of float32, float16, bfloat16, int8"):
        make(dtype("int32"), 3, 32)


def test_a_cache_written_for_an_older_engine_is_told_what_it_lacks():
    class Old:
        num_blocks = block_size = 4
        nbytes = state_bytes = 0
        layer = free = None

    lacking = "format, block_bytes, state_slots, copy_block, copy_states, snapshot, restore, truncate"
    with pytest.raises(pio.ConfigError, match=rf"Old lacks {lacking}, which pio\.cache\.protocol\.Cache lists"):
        check_offered(Old())


def test_pages_without_a_format_say_where_it_was_lost():
    pages = Pages.zeros((1, 32, 36), "uint8")
    with pytest.raises(pio.TensorError, match=r"clone\(\).* have no format any more"):
        check_pages("op", "keys", Pages.of(pages, "int8").clone())
