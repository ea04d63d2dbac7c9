"""Linear layers over packed weights: as ``linear``, by pairs of groups of 32 inputs instead of steps."""

from __future__ import annotations

from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import FORMATS, PAIR, RECORD, START
from pio.kernels._jit import PerDtype
from pio.kernels.cuda._desk import leave, leave_sources, recall, sources
from pio.kernels.cuda._jit import device_function, device_function_per_dtype
from pio.kernels.cuda._sums import add as add_sums
from pio.kernels.cuda._sums import zeros as no_sums
from pio.kernels.cuda.linear import BLOCK, DESK, FEW_DESK, SPLITS, finish
from pio.kernels.cuda.ptx import (
    WARP,
    copy_async,
    end_copies,
    get_f32,
    get_shared_f32,
    shared_memory,
    single,
    syncthreads,
    thread_index,
    wait_copies,
)
from pio.kernels.cuda.quantized_tiles import (
    ACROSS,
    FEW_LINE,
    MANY_LINE,
    ROW_SUMS,
    ahead,
    end_offsets,
    few_pair,
    few_pairs,
    form_of,
    many_pair,
    pair_bytes,
    put_few,
    put_many,
    row_offsets,
    tiles_of,
)

WIDE = 2 * OUTPUTS  # outputs of a unit of few rows: two blocks
ROWS, DOWN = 2 * 8 * ACROSS, 4 * WIDE  # rows and outputs of a tile of many: warps are four by two
BLOCKS = DOWN // OUTPUTS  # of weights, of a tile

header_bytes = PerDtype(lambda key: form_of(key)[0].header_bytes)
four_bytes = PerDtype(lambda key: 64 if form_of(key)[0].bits == 4 else 128)  # of eight inputs of a block
few_zeros = PerDtype(lambda key: no_sums[str(ROW_SUMS * form_of(key)[1])])
many_zeros, add_many = no_sums[str(ROW_SUMS * ACROSS)], add_sums[str(ROW_SUMS * ACROSS)]
finish_f32 = finish["float32"]
weights_stage = PerDtype(lambda name: BLOCKS * FORMATS[name].pair_bytes)
stage_bytes = PerDtype(lambda name: BLOCKS * FORMATS[name].pair_bytes + ROWS * RECORD)
stages = PerDtype(lambda name: min(DESK // stage_bytes[name], 4))
wait_stage = PerDtype(lambda name: wait_copies[str(stages[name] - 2)])
wait_all = wait_copies["0"]
few_1, few_2 = (PerDtype(lambda name, n=n: few_rows[f"{name}/{n}"]) for n in (1, 2))


@device_function
def pairs_of(k: int) -> int:
    """Pairs of groups of a row."""
    return (k + PAIR - 1) // PAIR


@device_function_per_dtype
def few_rows(
    y: int, x: int, w: int, bias: int, c0: int, rows: int, n: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Multiply up to 8 or 16 rows by 32 outputs from c0 on.

    y[r, c] = sum_k x[r, k] * w[c, k] (+ y[r, c] if add) (+ bias[c] if bias is not 0)

    Shapes: x (rows, 16 + 80 pairs) bytes, a row every ldx, and w (blocks, pairs, bytes) as ``_formats`` lays them out;
    bias float32 (n,); y float32 (rows, n), a row every ldy numbers.
    """
    lane, warp = thread_index() % WARP, thread_index() // WARP
    g, t = lane // 4, lane % 4
    pairs = pairs_of(k)
    leave(shared_memory() + FEW_DESK, y, bias, c0, rows, n)
    block = w + min(c0 // OUTPUTS + g // 4, (n - 1) // OUTPUTS) * (pairs * pair_bytes)
    stored, header = block + header_bytes + g % 4 * 16 + t * four_bytes, block + g % 4 * 8
    own, ends = row_offsets(g, rows, ldx, START + 8 * t), end_offsets(2 * t, rows, ldx, START + PAIR)
    length = (pairs + SPLITS - 1) // SPLITS
    p, last = warp * length, min((warp + 1) * length, pairs)
    sums = few_zeros()
    while p + ahead <= last:
        sums = few_pairs(sums, stored, header, x, own, ends, p)
        p += ahead
    while p < last:
        sums = few_pair(sums, stored, header, x, own, ends, p)
        p += 1
    place, size = shared_memory(), 8 * tiles_of * FEW_LINE
    put_few(place + 4 * (warp * size + 2 * t * FEW_LINE + 4 * g), sums)
    syncthreads()
    y, bias, c0, rows, n = recall(place + FEW_DESK)
    i = thread_index()
    while i < WIDE * 8 * tiles_of:
        r, c = i // WIDE, i % WIDE
        if r < rows and c0 + c < n:
            total = single(0.0)
            for split in range(SPLITS):
                total = total + get_shared_f32(place + 4 * (split * size + r * FEW_LINE + c))
            finish_f32(y + 4 * (r * ldy + c0 + c), total + get_f32(x + r * ldx), bias, c0 + c, add)
        i += BLOCK
    syncthreads()


@device_function_per_dtype
def fill(stage: int, p: int, pairs: int) -> None:
    """Begin to bring a pair of a tile to shared memory: blocks of weights, then records; zeros for what is missing.

    The desk says of which tile.
    """
    x, w, r0, ldx = sources(shared_memory() + DESK)
    _, _, c0, rows, n = recall(shared_memory() + DESK)
    blocks, chunks = (n + OUTPUTS - 1) // OUTPUTS, int(pair_bytes) // 16
    i = thread_index()
    while i < BLOCKS * chunks:
        own = i // chunks
        c = i - own * chunks
        here = c0 // OUTPUTS + own < blocks
        source = w + ((c0 // OUTPUTS + own) * pairs + p) * pair_bytes + 16 * c if here else w
        copy_async(stage + 16 * i, source, 16 if here else 0)
        i += BLOCK
    i = thread_index()
    while i < ROWS * (RECORD // 16):
        r = i // (RECORD // 16)
        c = i - r * (RECORD // 16)
        here = r0 + r < rows
        source = x + (r0 + r) * ldx + START + p * RECORD + 16 * c if here else x
        copy_async(stage + weights_stage + 16 * i, source, 16 if here else 0)
        i += BLOCK


@device_function_per_dtype
def many_rows(
    y: int, x: int, w: int, bias: int, c0: int, r0: int, rows: int, n: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Multiply 64 rows from r0 on by 128 outputs from c0 on.

    Shapes: as ``few_rows``.
    """
    lane, down, across = thread_index() % WARP, thread_index() // WARP % 4, thread_index() // WARP // 4
    g, t = lane // 4, lane % 4
    place, depth, pairs = shared_memory(), int(stages), pairs_of(k)
    leave(place + DESK, y, bias, c0, rows, n)
    leave_sources(place + DESK, x, w, r0, ldx)
    syncthreads()
    block = (2 * down + g // 4) * pair_bytes
    stored, header = block + header_bytes + g % 4 * 16 + t * four_bytes, block + g % 4 * 8
    own = weights_stage + (8 * ACROSS * across + g) * RECORD + 8 * t
    end = weights_stage + (8 * ACROSS * across + 2 * t) * RECORD + PAIR
    length = (pairs + SPLITS - 1) // SPLITS
    for i in range(depth - 1):
        if i < pairs:
            fill(place + i * stage_bytes, i, pairs)
        end_copies()
    sums, total = many_zeros(), many_zeros()
    i, stage, free, left = 0, 0, depth - 1, length
    while i < pairs:
        wait_stage()
        syncthreads()
        if i + depth - 1 < pairs:
            fill(place + free * stage_bytes, i + depth - 1, pairs)
        end_copies()
        at = place + stage * stage_bytes
        sums = many_pair(sums, at + stored, at + header, at + own, at + end)
        free = stage
        stage = stage + 1 if stage + 1 < depth else 0
        i += 1
        left -= 1
        if left == 0 or i == pairs:
            total, sums, left = add_many(total, sums), many_zeros(), length
    wait_all()
    syncthreads()
    put_many(place + 4 * ((8 * ACROSS * across + 2 * t) * MANY_LINE + WIDE * down + 4 * g), total)
    syncthreads()
    y, bias, c0, rows, n = recall(place + DESK)
    x, _, r0, ldx = sources(place + DESK)
    i = thread_index()
    while i < ROWS * DOWN:
        r, c = i // DOWN, i % DOWN
        if r0 + r < rows and c0 + c < n:
            value = get_shared_f32(place + 4 * (r * MANY_LINE + c)) + get_f32(x + (r0 + r) * ldx)
            finish_f32(y + 4 * ((r0 + r) * ldy + c0 + c), value, bias, c0 + c, add)
        i += BLOCK
    syncthreads()


@device_function
def few_quantized_units(rows: int, n: int) -> int:
    """Return how many units of work a matrix is for up to FEW rows: one for each sixteen of them."""
    return (n + WIDE - 1) // WIDE * ((rows + 15) // 16)


@device_function_per_dtype
def few_quantized_unit(
    y: int, x: int, w: int, bias: int, unit: int, rows: int, n: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Do one unit of ``few_quantized_units``.

    Shapes: as ``few_rows``.
    """
    if rows <= 8:
        few_1(y, x, w, bias, WIDE * unit, rows, n, k, ldy, ldx, add)
    else:
        passes = (rows + 15) // 16
        r = unit % passes * 16  # blocks beside each other read the same weights
        few_2(y + 4 * r * ldy, x + r * ldx, w, bias, WIDE * (unit // passes), rows - r, n, k, ldy, ldx, add)


@device_function
def many_quantized_units(rows: int, n: int) -> int:
    """Return how many units of work a matrix is for more rows."""
    return (n + DOWN - 1) // DOWN * ((rows + ROWS - 1) // ROWS)


@device_function_per_dtype
def many_quantized_unit(
    y: int, x: int, w: int, bias: int, unit: int, rows: int, n: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Do one unit of ``many_quantized_units``.

    Shapes: as ``few_rows``.
    """
    tiles = (rows + ROWS - 1) // ROWS
    many_rows(y, x, w, bias, DOWN * (unit // tiles), ROWS * (unit % tiles), rows, n, k, ldy, ldx, add)
