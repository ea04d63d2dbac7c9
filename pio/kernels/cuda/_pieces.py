"""Pieces of attention: what a block takes of the work of a batch, and how it walks the stretches of one.

A piece is some queries of a sequence that see the same key/value head, token by token. Where there are few pieces to a
long sequence, blocks take its runs of stretches instead, and whoever ends last joins what they have left in scratch;
else one block walks all stretches of a piece. Both do the same with each stretch and join them in the same order, see
``_runs``, so a query's bits do not depend on what else is in the batch, how the prompt was cut, or on the GPU. How keys
and values lie, and what is computed of them, is the business of the cache's format. Latents are one key/value head,
whose keys and values are the same memory; so their record begins as that of ``_attention_record``.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pio.kernels._attention_record import CAUSAL, GROUP, HEAD_DIM, KV_HEADS, SCRATCH, WINDOW
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda import _float_attention as floats
from pio.kernels.cuda import _float_latent as float_latents
from pio.kernels.cuda import quantized_attention as int8
from pio.kernels.cuda import quantized_latent as int8_latents
from pio.kernels.cuda._float_attention import query_row
from pio.kernels.cuda._jit import device_function, device_function_per_dtype
from pio.kernels.cuda._parts import all_there, join_parts, keep_part
from pio.kernels.cuda._runs import begin_run, end_run, first_of, run_of
from pio.kernels.cuda._slices import in_format, past_of, sequences_of, start_of, table_of
from pio.kernels.cuda._stretches import (
    APART,
    COUNT,
    COUNTED,
    COUNTER,
    END,
    FLAG,
    HEAD,
    INTO,
    ITEMS,
    OLDEST,
    ONLY,
    ROW,
    ROWS,
    RUNS,
    SEQUENCE,
    SLOTS,
    STRETCH,
    TABLE,
    USED,
    begin_work,
    finish_rows,
    note_work,
    put_row,
    put_work,
    work,
)
from pio.kernels.cuda.ptx import (
    block_index,
    get_i64,
    get_shared_i32,
    grid_size,
    put_shared_i32,
    shared_memory,
    syncthreads,
    thread_index,
)
from pio.kernels.sizes import GPU_COUNTERS as COUNTERS
from pio.kernels.sizes import PARTS

T = TypeVar("T")
LATENTS = "latents/"  # begins the kind of a cache of latents
SPAN = "int8/span"  # a cache of int8 whose queries see all of their sequence


def _of_cache(heads: PerDtype[T], latents: PerDtype[Any]) -> PerDtype[T]:
    """Choose by what a cache holds; the same arguments have other names where it is latents."""
    return PerDtype(lambda kind: latents[kind.removeprefix(LATENTS)] if kind.startswith(LATENTS) else heads[kind])


_spans = PerDtype(lambda kind: int8.take_stretch["span" if kind == SPAN else "block"])
_stretches = PerDtype(lambda kind: (_spans if kind in ("int8", SPAN) else floats.take_stretch)[kind])
take_stretch = _of_cache(_stretches, in_format(float_latents.take_stretch, int8_latents.take_stretch))
put_queries = _of_cache(
    in_format(floats.put_queries, int8.put_queries), in_format(float_latents.put_queries, int8_latents.put_queries)
)
queries_of = PerDtype(lambda kind: float_latents.queries_of if kind.startswith(LATENTS) else floats.queries_of)


@device_function
def oldest_of(shape: int, position: int) -> int:
    """The first position that a token sees."""
    window = get_i64(shape + WINDOW)
    return max(0, position - window + 1) if window > 0 else 0


@device_function
def find_piece(batch: int, scratch: int, shape: int, item: int, most: int) -> bool:
    """Find piece number ``item`` of the work of a batch, or run of one, and note it; return whether there is one.

    It looks from where the one before was: numbers only grow. A piece has up to ``most`` queries.

    Shapes: as in ``attention.attention``. One thread does it.
    """
    kv_heads, group, n = get_i64(shape + KV_HEADS), get_i64(shape + GROUP), get_i64(shape + HEAD_DIM)
    used, counted = work(USED), work(COUNTED)
    own = 4 * most * (n + 2)  # bytes of a block's slot
    slots = scratch + 4 * COUNTERS + grid_size() * own
    room = scratch + PARTS * get_i64(shape + SCRATCH) - slots
    s, before = work(SEQUENCE), work(ITEMS)
    while s < sequences_of(batch):
        count, past = (start_of(batch, s + 1) - start_of(batch, s)) * group, past_of(batch, s)
        if count <= 0:
            s += 1
            continue
        tiles, begin = (count + most - 1) // most, run_of(oldest_of(shape, past) // STRETCH)
        pieces, apart = tiles * kv_heads, 4 * min(most, count) * (n + 2)
        runs = run_of((past + count // group - 1) // STRETCH) + 1 - begin
        size = pieces * runs * apart
        split = runs > 1 and pieces < 2 * grid_size() and used + size <= room and counted + pieces <= COUNTERS
        items = pieces * runs if split else pieces
        if item < before + items:
            mine = item - before
            piece, run = mine % pieces, runs - 1 - mine // pieces  # the longest runs come first
            row = (tiles - 1 - piece // kv_heads) * most  # the ones that see most come first
            rows, length = min(most, count - row), past + count // group
            note_work(s, before, used, counted)
            put_work(TABLE, table_of(batch, s))
            put_work(HEAD, piece % kv_heads)
            put_work(ROW, row)
            put_work(COUNT, rows)
            put_work(OLDEST, oldest_of(shape, past + row // group))
            put_work(END, past + (row + rows - 1) // group + 1 if get_i64(shape + CAUSAL) != 0 else length)
            put_work(SLOTS, slots + used + piece * runs * apart if split else 0)
            put_work(APART, apart)
            put_work(RUNS, runs)
            put_work(ONLY, begin + run)
            put_work(COUNTER, scratch + 4 * (counted + piece))
            put_work(INTO, slots + used + (piece * runs + run) * apart if split else slots - (block_index() + 1) * own)
            return True
        before += items
        s += 1
        if split:
            used += size
            counted += pieces
    return False


@device_function
def begin_rows(batch: int, shape: int, apart: int) -> None:
    """Begin the rows of a piece; their outputs are those of the queries, or with ``apart`` counted from zero."""
    r, rows, row, s = thread_index(), work(COUNT), work(ROW), work(SEQUENCE)
    if r < ROWS:
        group, first, past = get_i64(shape + GROUP), start_of(batch, s), past_of(batch, s)
        position = past + (row + r) // group
        end = position + 1 if get_i64(shape + CAUSAL) != 0 else past + start_of(batch, s + 1) - first
        if r >= rows:
            put_row(r, 0, 0, 0)
        else:
            place = r if apart != 0 else query_row(shape, first, work(HEAD), row + r)
            put_row(r, oldest_of(shape, position), end, place)


@device_function_per_dtype
def attend_piece(out: int, q: int, q_rope: int, keys: int, values: int, batch: int, shape: int) -> None:
    """Attend for the piece that the block works on: over all its stretches, or over one run.

    Shapes: as in ``attend_batch``. The outputs of one run go to a slot, and the last block that is done joins them.
    """
    split = int(work(SLOTS) != 0)
    begin_rows(batch, shape, split)
    put_queries(q, q_rope, shape, start_of(batch, work(SEQUENCE)), work(ROW), work(COUNT))
    syncthreads()
    stretch, last, fresh = work(OLDEST) // STRETCH, (work(END) - 1) // STRETCH + 1, 1
    if split != 0:
        stretch, last = max(stretch, first_of(work(ONLY))), min(last, first_of(work(ONLY) + 1))
    inside = 0  # whether a run has begun that goes to the block's slot
    while stretch < last:
        behind = min(first_of(run_of(stretch) + 1), last)
        aside = 1 if split == 0 and first_of(run_of(stretch) + 1) - first_of(run_of(stretch)) > 1 else 0
        if aside > inside:
            begin_run()
        into = work(INTO) if split + aside != 0 else out
        take_stretch(into, keys, values, shape, stretch * STRETCH, fresh if aside == 0 else 1 - inside)
        stretch += 1
        inside = aside if stretch < behind else 0
        if aside > inside:
            end_run(out, work(INTO), work(COUNT), get_i64(shape + HEAD_DIM), fresh)
        if inside == 0:
            fresh = 0
    if work(SLOTS) == 0:
        finish_rows(out, work(COUNT), get_i64(shape + HEAD_DIM))
    else:
        syncthreads()
        keep_part(work(INTO), work(COUNT), get_i64(shape + HEAD_DIM))
        if all_there(work(COUNTER), work(RUNS)):
            begin_rows(batch, shape, 0)
            syncthreads()
            join_parts(out, work(SLOTS), work(RUNS), work(APART), work(COUNT), get_i64(shape + HEAD_DIM))


@device_function_per_dtype
def attend_batch(out: int, q: int, q_rope: int, keys: int, values: int, batch: int, scratch: int, shape: int) -> None:
    """Attend for a batch, pieces of work taken by blocks in turn.

    Shapes: as in ``attention.attention``; of latents q is their queries, q_rope those of rotated keys, and keys and
    values are the same. Of other caches q_rope is 0.
    """
    item = block_index()
    if thread_index() == 0:
        begin_work()
    while True:
        if thread_index() == 0:
            put_shared_i32(shared_memory() + FLAG, int(find_piece(batch, scratch, shape, item, queries_of(shape))))
        syncthreads()
        if get_shared_i32(shared_memory() + FLAG) == 0:
            return
        attend_piece(out, q, q_rope, keys, values, batch, shape)
        syncthreads()
        item += grid_size()
