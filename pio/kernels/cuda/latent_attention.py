"""Latent attention over a paged cache, as ``pio.kernels.latent_attention``: all heads read the same numbers, once.

Work is dealt as in ``attention``: a piece is up to ROWS queries of a sequence, heads of tokens, and where there are few
pieces to a long sequence, blocks take its runs. A query's bits depend on its sequence alone.
"""

from __future__ import annotations

from pio.kernels._latent_record import HEADS, RANK, SCRATCH
from pio.kernels.cuda import _float_latent as floats
from pio.kernels.cuda import quantized_latent as int8
from pio.kernels.cuda._fragments import QUERIES
from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function, device_function_per_dtype
from pio.kernels.cuda._runs import begin_run, end_run, first_of, run_of
from pio.kernels.cuda._slices import in_format, past_of, sequence_of, sequences_of, start_of, table_of
from pio.kernels.cuda._stretches import (
    APART,
    COUNT,
    COUNTED,
    COUNTER,
    END,
    FLAG,
    INTO,
    ITEMS,
    ONLY,
    ROW,
    ROWS,
    RUNS,
    SEQUENCE,
    SLOTS,
    STRETCH,
    TABLE,
    THREADS,
    USED,
    all_there,
    begin_work,
    finish_rows,
    join_parts,
    keep_part,
    note_work,
    put_row,
    put_work,
    work,
)
from pio.kernels.cuda._words import get_shared_i32, put_shared_i32
from pio.kernels.cuda.ptx import (
    WARP,
    block_index,
    get_f32,
    get_i32,
    get_i64,
    grid_size,
    itemsize,
    shared_memory,
    single,
    store,
    syncthreads,
    thread_index,
)
from pio.kernels.sizes import BLOCK, GPU_BLOCKS, PARTS
from pio.kernels.sizes import GPU_COUNTERS as COUNTERS

put_queries = in_format(floats.put_queries, int8.put_queries)
take_stretch = in_format(floats.take_stretch, int8.take_stretch)
steps_of, LATENT_STEPS = floats.steps_of, floats.LATENT_STEPS


@device_function
def find_piece(batch: int, scratch: int, shape: int, item: int) -> bool:
    """Find piece number ``item`` of the work of a batch, or run of one, and note it; return whether there is one.

    It looks from where the one before was: numbers only grow.

    Shapes: as in ``latent_attention``. One thread does it.
    """
    heads, n, used, counted = get_i64(shape + HEADS), get_i64(shape + RANK), work(USED), work(COUNTED)
    most = QUERIES * min(ROWS // QUERIES, LATENT_STEPS // steps_of(shape))
    own = 4 * most * (n + 2)  # bytes of a block's slot
    slots = scratch + 4 * COUNTERS + grid_size() * own
    room = scratch + PARTS * get_i64(shape + SCRATCH) - slots
    s, before = work(SEQUENCE), work(ITEMS)
    while s < sequences_of(batch):
        count, past = (start_of(batch, s + 1) - start_of(batch, s)) * heads, past_of(batch, s)
        if count <= 0:
            s += 1
            continue
        pieces, runs = (count + most - 1) // most, run_of((past + count // heads - 1) // STRETCH) + 1
        apart = 4 * min(most, count) * (n + 2)
        size = pieces * runs * apart
        split = runs > 1 and pieces < 2 * grid_size() and used + size <= room and counted + pieces <= COUNTERS
        items = pieces * runs if split else pieces
        if item < before + items:
            mine = item - before
            piece, run = mine % pieces, runs - 1 - mine // pieces  # the longest runs come first
            row = (pieces - 1 - piece) * most  # the ones that see most come first
            rows = min(most, count - row)
            note_work(s, before, used, counted)
            put_work(TABLE, table_of(batch, s))
            put_work(ROW, row)
            put_work(COUNT, rows)
            put_work(END, past + (row + rows - 1) // heads + 1)
            put_work(SLOTS, slots + used + piece * runs * apart if split else 0)
            put_work(APART, apart)
            put_work(RUNS, runs)
            put_work(ONLY, run)
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
    r, row, s = thread_index(), work(ROW), work(SEQUENCE)
    if r < ROWS:
        heads = get_i64(shape + HEADS)
        place = r if apart != 0 else start_of(batch, s) * heads + row + r
        put_row(r, 0, past_of(batch, s) + (row + r) // heads + 1 if r < work(COUNT) else 0, place)


@device_function_per_dtype
def attend_piece(out: int, q_latent: int, q_rope: int, latents: int, batch: int, shape: int) -> None:
    """Attend for the piece that the block works on, as ``attention.attend_piece``.

    Shapes: as in ``latent_attention``.
    """
    split = int(work(SLOTS) != 0)
    begin_rows(batch, shape, split)
    put_queries(q_latent, q_rope, shape, start_of(batch, work(SEQUENCE)), work(ROW), work(COUNT))
    syncthreads()
    stretch, last, fresh = 0, (work(END) - 1) // STRETCH + 1, 1
    if split != 0:
        stretch, last = first_of(work(ONLY)), min(last, first_of(work(ONLY) + 1))
    inside = 0  # whether a run has begun that goes to the block's slot
    while stretch < last:
        behind = min(first_of(run_of(stretch) + 1), last)
        aside = 1 if split == 0 and first_of(run_of(stretch) + 1) - first_of(run_of(stretch)) > 1 else 0
        if aside > inside:
            begin_run()
        into = work(INTO) if split + aside != 0 else out
        take_stretch(into, latents, shape, stretch * STRETCH, fresh if aside == 0 else 1 - inside)
        stretch += 1
        inside = aside if stretch < behind else 0
        if aside > inside:
            end_run(out, work(INTO), work(COUNT), get_i64(shape + RANK), fresh)
        if inside == 0:
            fresh = 0
    if work(SLOTS) == 0:
        finish_rows(out, work(COUNT), get_i64(shape + RANK))
    else:
        syncthreads()
        keep_part(work(INTO), work(COUNT), get_i64(shape + RANK))
        if all_there(work(COUNTER), work(RUNS)):
            begin_rows(batch, shape, 0)
            syncthreads()
            join_parts(out, work(SLOTS), work(RUNS), work(APART), work(COUNT), get_i64(shape + RANK))


@cuda_kernel_per_dtype(block=THREADS, blocks=GPU_BLOCKS, shared=floats.SHARED)
def latent_attention(out: int, q_latent: int, q_rope: int, latents: int, batch: int, scratch: int, shape: int) -> None:
    """Attend for a batch of sequences over their paged latents.

    out[t, h] = softmax(scale * (q_latent[t, h] . latent[j] + q_rope[t, h] . key[j]), j <= position of t) @ latent[j]

    Shapes: q_latent float32 (T, heads, rank) and q_rope float32 (T, heads, rope_dim), with gaps as shape says; out
    float32 (T, heads, rank); latents (blocks, ...) as the cache's format keeps them; batch the record of ``_slices``,
    shape that of ``_latent_record``; scratch as in ``attention.attention``, with slots float32 (rows, rank + 2) where
    rows are up to 24. A row of a latent and its key has at most 1728 numbers, of floats a multiple of eight. Sums in
    float32.
    """
    item = block_index()
    if thread_index() == 0:
        begin_work()
    while True:
        if thread_index() == 0:
            put_shared_i32(shared_memory() + FLAG, int(find_piece(batch, scratch, shape, item)))
        syncthreads()
        if get_shared_i32(shared_memory() + FLAG) == 0:
            return
        attend_piece(out, q_latent, q_rope, latents, batch, shape)
        syncthreads()
        item += grid_size()


@device_function_per_dtype
def store_floats(
    latents: int, page: int, slot: int, latent: int, key: int, rank: int, rope_dim: int, lane: int
) -> None:
    """Put the latent and the shared key of a position into their block, rounded to the cache's type.

    Shapes: latent float32 (rank,); key float32 (rope_dim,); latents (blocks, BLOCK, values + rope_dim) of the kernel's
    type; slot < BLOCK.
    """
    values, i = (rank + 31) // 32 * 32, lane
    row = latents + itemsize * (page * BLOCK + slot) * (values + rope_dim)
    while i < values + rope_dim:
        x = single(0.0)
        if i < rank:
            x = get_f32(latent + 4 * i)
        elif i >= values:
            x = get_f32(key + 4 * (i - values))
        store(row + itemsize * i, x)
        i += WARP


store_position = in_format(store_floats, int8.store_position)


@cuda_kernel_per_dtype(block=256, blocks=4)
def write_latents(
    latents: int, latent: int, key: int, batch: int, ld_latent: int, ld_key: int, rank: int, rope_dim: int
) -> None:
    """Store the latents and shared keys of a batch in the blocks of its sequences; a warp takes a token.

    latents[table[p // BLOCK], p % BLOCK] = (latent[t], key[t])

    Shapes: latent float32 (T, rank), token stride ld_latent; key float32 (T, rope_dim), ld_key; latents, batch as in
    ``latent_attention``. Rounded or quantized to the cache's type.
    """
    lane, warps = thread_index() % WARP, 256 // WARP
    t, tokens = block_index() * warps + thread_index() // WARP, start_of(batch, sequences_of(batch))
    while t < tokens:
        s = sequence_of(batch, t)
        at = past_of(batch, s) + t - start_of(batch, s)
        page = get_i32(table_of(batch, s) + 4 * (at // BLOCK))
        at_latent, at_key = latent + 4 * t * ld_latent, key + 4 * t * ld_key
        store_position(latents, page, at % BLOCK, at_latent, at_key, rank, rope_dim, lane)
        t += grid_size() * warps
