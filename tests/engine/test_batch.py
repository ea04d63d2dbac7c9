import gc
import weakref
from array import array

import pytest

from pio.cache.batch import Batch
from pio.errors import CapacityError, TensorError
from pio.tensor import Tensor


def test_slices_of_several_sequences() -> None:
    batch = Batch(max_tokens=9, max_sequences=3, max_blocks_per_sequence=4, max_outputs=5)
    addresses = batch.tokens.address, batch.block_tables.address
    for _ in range(2):  # refilled in place
        batch.begin()
        batch.add([5, 6, 7], 0, [2], 0)
        batch.add(array("i", [8]), 11, array("i", [4, 1, 3]), 1)
        batch.add((9, 10, 11), 4, (0, 5), 3)
        assert (batch.num_tokens, batch.num_sequences, batch.num_outputs) == (7, 3, 4)
        assert batch.tokens.tolist()[:7] == [5, 6, 7, 8, 9, 10, 11]
        assert batch.rotary_positions.tolist()[0][:7] == [0, 1, 2, 11, 4, 5, 6]
        assert batch.starts.tolist() == [0, 3, 4, 7]
        assert batch.past.tolist() == [0, 11, 4]
        assert [t[:n] for t, n in zip(batch.block_tables.tolist(), (1, 3, 2), strict=True)] == [[2], [4, 1, 3], [0, 5]]
        assert batch.output_rows.tolist()[:4] == [3, 4, 5, 6]
    assert addresses == (batch.tokens.address, batch.block_tables.address)


def test_all_tables_lie_in_one_piece_behind_the_record() -> None:
    batch = Batch(max_tokens=9, max_sequences=3, max_blocks_per_sequence=4, max_outputs=5, axes=2)
    batch.add([5, 6], 7, [1, 2], 1, slot=2)
    batch.add([8], 0, [3], 1, slot=1, source=2)
    assert batch.rotary_positions.tolist() == [[7, 8, 0] + [0] * 6] * 2  # a text has one position on all axes
    tensors = (batch.starts, batch.past, batch.slots, batch.block_tables, batch.tokens, batch.rotary_positions)
    assert {t.storage for t in (*tensors, batch.output_rows)} == {batch.record.storage}
    sequences, blocks, *offsets = batch.record.tolist()
    assert (sequences, blocks) == (2, 4)
    tables = batch.block_tables, batch.starts, batch.past, batch.slots, batch.rows, batch.sources
    assert [batch.record.address + offset for offset in offsets] == [t.address for t in tables]
    assert batch.slots.tolist() == [2, 1, 0]
    assert batch.sources.tolist() == [2, 2, 0]
    batch.begin()
    assert batch.record.tolist()[0] == batch.num_sequences == 0


@pytest.mark.parametrize(
    ("tokens", "table", "outputs", "words"),
    [
        ([1] * 10, [0], 0, "9 tokens, found 10"),
        ([1], [0] * 5, 0, "4 blocks of one sequence, found 5"),
        ([1] * 6, [0], 6, "5 output rows, found 6"),
        ([], [0], 1, "at least one token"),
        ([1] * 3, [0], 4, "0 to 3 rows of logits, found outputs=4"),
        ([1], [0], -1, "0 to 1 rows of logits, found outputs=-1"),
    ],
)
def test_more_than_it_holds_is_refused(tokens: list[int], table: list[int], outputs: int, words: str) -> None:
    batch = Batch(max_tokens=9, max_sequences=3, max_blocks_per_sequence=4, max_outputs=5)
    with pytest.raises(CapacityError, match=words):
        batch.add(tokens, 0, table, outputs)
    for _ in range(3):
        batch.add([1], 0, [0], 0)
    with pytest.raises(CapacityError, match="3 sequences, found 4"):
        batch.add([1], 0, [0], 0)


def filled(**sizes: int) -> Batch:
    batch = Batch(max_tokens=9, max_sequences=3, max_blocks_per_sequence=4, max_outputs=5, **sizes)
    batch.add([5, 6, 7], 0, [2], 0)
    batch.add([8, 9], 11, [4, 1], 1)
    return batch


def test_tokens_turn_by_positions_of_their_own() -> None:
    batch = filled(axes=3)
    batch.turn(1, [[4, 4], array("i", [4, 5]), (6, 7)])
    assert [axis[:5] for axis in batch.rotary_positions.tolist()] == [
        [0, 4, 4, 11, 12],
        [0, 4, 5, 11, 12],
        [0, 6, 7, 11, 12],
    ]
    assert batch.past.tolist()[:2] == [0, 11]  # where a token stands in the cache is another matter
    batch.begin()
    batch.add([5, 6, 7], 3, [2], 0)
    assert [axis[:3] for axis in batch.rotary_positions.tolist()] == [[3, 4, 5]] * 3


@pytest.mark.parametrize(
    ("first", "positions"),
    [(0, [[1], [1]]), (0, []), (4, [[1, 2]] * 3), (-1, [[1]] * 3), (6, [[]] * 3)],
)
def test_positions_that_the_batch_has_no_tokens_for(first: int, positions: list[list[int]]) -> None:
    batch = filled(axes=3)
    before = batch.rotary_positions.tolist()
    with pytest.raises(CapacityError, match="5 tokens and 3 axes"):
        batch.turn(first, positions)
    assert batch.rotary_positions.tolist() == before


def test_rows_come_with_what_is_added_behind_layers() -> None:
    batch = filled(levels=2)
    rows, *levels = (Tensor.zeros((2, 7)) for _ in range(3))
    batch.place(1, rows, levels)
    alone = Tensor.zeros((1, 7))
    batch.place(4, alone)  # nothing is added to these
    assert batch.embeddings.tolist()[:5] == [0, rows.address, rows.address + 28, 0, alone.address]
    for found, level in zip(batch.additions.tolist(), levels, strict=True):
        assert found == [0, level.address, level.address + 28, 0, 0, 0, 0, 0, 0]
    kept = [weakref.ref(tensor) for tensor in levels]
    del levels[:], level
    gc.collect()
    assert all(reference() is not None for reference in kept)  # as long as their addresses are in the batch
    batch.begin()
    gc.collect()
    assert not any(reference() is not None for reference in kept)
    assert not any(batch.embeddings.tolist()) and not any(map(any, batch.additions.tolist()))


def test_additions_that_do_not_fit() -> None:
    batch, rows = filled(levels=2), Tensor.zeros((2, 7))
    with pytest.raises(CapacityError, match="1 levels of rows to add: the batch has 2"):
        batch.place(0, rows, [rows])
    with pytest.raises(TensorError, match="additions"):
        batch.place(0, rows, [rows, Tensor.zeros((2, 8))])
    with pytest.raises(CapacityError, match="from token 4 on: the batch has 5"):
        batch.place(4, rows, [rows, rows])
    assert not any(batch.embeddings.tolist()) and not any(map(any, batch.additions.tolist()))
    with pytest.raises(CapacityError, match="the batch has 0"):
        filled().place(0, rows, [rows])
