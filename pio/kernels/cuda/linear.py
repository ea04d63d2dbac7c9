"""Linear layers over float weights: a unit of work is a few outputs of all rows, or a tile of many.

Sums are split by position: SPLITS stretches of k, each summed in its order, then added in theirs. Of few rows a block
takes sixteen outputs and each warp a stretch, so that weights are read once and by many lanes at a time. Of many rows a
block takes a tile, whose warps walk all of k and add a stretch's sums to those before. Both take the same instructions
in the same order, so that a row's bits do not depend on its neighbours.
"""

# numba-cuda comes without type stubs, and tiles are tuples whose lengths depend on the kernel
# pyright: reportUnnecessaryComparison=false
from __future__ import annotations

from pio.kernels._jit import PerDtype
from pio.kernels.cuda._desk import DESK_BYTES, leave, leave_sources, recall, sources
from pio.kernels.cuda._jit import device_function, device_function_per_dtype
from pio.kernels.cuda._sums import add as add_sums
from pio.kernels.cuda._sums import zeros as no_sums
from pio.kernels.cuda.ptx import (
    WARP,
    copy_async,
    end_copies,
    get_f32,
    get_shared_f32,
    get_u16,
    load,
    put_f32,
    put_shared_u16,
    shared_memory,
    single,
    syncthreads,
    thread_index,
    wait_copies,
)
from pio.kernels.cuda.tiles import (
    FEW_LINE,
    KINDS,
    MANY_LINE,
    STEP,
    ahead,
    few_part,
    few_step,
    few_steps,
    input_bytes,
    kind_of,
    line,
    many_step,
    put_few,
    put_many,
    row_addresses,
    tiles_of,
    weight_bytes,
)
from pio.kernels.sizes import ROUNDED

SPLITS = 8  # stretches of k, of a warp each where rows are few
BLOCK = SPLITS * WARP  # threads
BLOCKS = 2  # of a multiprocessor
OUTPUTS = 16  # of a unit of few rows
DOWN = 128  # outputs of a tile of many rows: warps are four by two
# Shared memory: sums of sixteen rows by thirty-two outputs of every stretch, in lines of 36, or stages of many rows.
# Behind it is a desk, see ``_desk``.
FEW_DESK, DESK = 18 << 10, 48 << 10
FEW_SHARED, SHARED = FEW_DESK + DESK_BYTES, DESK + DESK_BYTES

few_zeros = PerDtype(lambda key: no_sums[str(4 * kind_of(key)[2])])
many_zeros, add_many = (PerDtype(lambda kind, of=of: of[str(8 * KINDS[kind].across)]) for of in (no_sums, add_sums))
many_across = PerDtype(lambda kind: 8 * KINDS[kind].across)  # rows of a warp of many
bias_at = PerDtype(lambda key: load["bfloat16" if kind_of(key)[0] == ROUNDED else kind_of(key)[0]])
outputs_stage = PerDtype(lambda kind: DOWN * line(KINDS[kind].weight))  # bytes of weights
stage_bytes = PerDtype(
    lambda kind: DOWN * line(KINDS[kind].weight) + 2 * 8 * KINDS[kind].across * line(KINDS[kind].input)
)
stages = PerDtype(lambda kind: min(DESK // stage_bytes[kind], 4))
wait_stage = PerDtype(lambda kind: wait_copies[str(stages[kind] - 2)])
wait_all = wait_copies["0"]
few_1, few_2 = (PerDtype(lambda kind, n=n: few_rows[f"{kind}/{n}"]) for n in (1, 2))


@device_function
def stretch(k: int) -> int:
    """Inputs of each of SPLITS stretches but the last: whole steps."""
    return (k + SPLITS * STEP - 1) // (SPLITS * STEP) * STEP


@device_function_per_dtype
def finish(y: int, total: float, bias: int, c: int, add: int) -> None:
    """Write a sum; add what is there, then a bias.

    Shapes: y float32 (1,); bias of the kernel's type, its number c, or 0.
    """
    if add != 0:
        total = total + get_f32(y)
    if bias != 0:
        total = total + bias_at(bias + weight_bytes * c)
    put_f32(y, total)


@device_function_per_dtype
def few_rows(
    y: int, x: int, w: int, bias: int, c0: int, rows: int, n: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Multiply up to 8 or 16 rows by sixteen rows of weights from c0 on.

    y[r, c] = sum_k x[r, k] * w[c, k] (+ y[r, c] if add) (+ bias[c] if bias is not 0)

    Shapes: as the kinds of ``tiles`` have them: x (rows, k), a row every ldx bytes; w (n, k); y float32 (rows, n), a
    row every ldy numbers.
    """
    lane, warp = thread_index() % WARP, thread_index() // WARP
    row, eight = lane // 4, 8 * (lane % 4)
    low, high = w + weight_bytes * k * min(c0 + row, n - 1), w + weight_bytes * k * min(c0 + row + 8, n - 1)
    xs = row_addresses(x, row, rows, ldx)
    leave(shared_memory() + FEW_DESK, y, bias, c0, rows, n)
    length = stretch(k)
    at, last = warp * length, min((warp + 1) * length, k)
    whole = last if (w | x | ldx | weight_bytes * k) & 15 == 0 else 0
    sums = few_zeros()
    while at + STEP * ahead <= whole:
        sums = few_steps(sums, low, high, xs, at + eight)
        at += STEP * ahead
    while at + STEP <= whole:
        sums = few_step(sums, low, high, xs, at + eight)
        at += STEP
    while at < last:
        sums = few_part(sums, low, high, xs, at + eight, k)
        at += STEP
    place, size = shared_memory(), 8 * tiles_of * FEW_LINE
    put_few(place + 4 * (warp * size + 2 * (lane % 4) * FEW_LINE + row), sums)
    syncthreads()
    y, bias, c0, rows, n = recall(place + FEW_DESK)
    i = thread_index()
    while i < OUTPUTS * 8 * tiles_of:
        r, c = i // OUTPUTS, i % OUTPUTS
        if r < rows and c0 + c < n:
            total = single(0.0)
            for split in range(SPLITS):
                total = total + get_shared_f32(place + 4 * (split * size + r * FEW_LINE + c))
            finish(y + 4 * (r * ldy + c0 + c), total, bias, c0 + c, add)
        i += BLOCK
    syncthreads()


@device_function
def copy_part(to: int, source: int, nbytes: int, together: int) -> None:
    """Copy up to sixteen bytes to shared memory, zeros behind them; two by two unless all are aligned."""
    if together != 0:
        copy_async(to, source, nbytes)
    else:
        for i in range(0, 16, 2):
            value = 0
            if i < nbytes:
                value = get_u16(source + i)
            put_shared_u16(to + i, value)


@device_function
def copy_lines(
    to: int, source: int, first: int, rows: int, count: int, row: int, ld: int, nbytes: int, width: int, together: int
) -> None:
    """Copy a step's numbers of some rows to shared memory, zeros for what is not there.

    Shapes: to (count, width) bytes, width 64 or 128; of 128, odd rows have their pieces of sixteen bytes exchanged in
    pairs, so that lanes meet no bank twice. source (rows, ld) bytes, of each ``nbytes`` from ``row`` on are left.
    """
    chunks = width // 16
    i = thread_index()
    while i < count * chunks:
        r, c = i // chunks, i % chunks
        swap = r & 1 if width == 128 else 0
        left = min(max(nbytes - 16 * c, 0), 16) if first + r < rows else 0
        origin = source + (first + r) * ld + row + 16 * c if left > 0 else source
        copy_part(to + r * width + 16 * (c ^ swap), origin, left, together)
        i += BLOCK


@device_function_per_dtype
def fill(stage: int, at: int, k: int) -> None:
    """Begin to bring a step of a tile to shared memory: rows of weights, then of activations, as the desk says."""
    x, w, r0, ldx = sources(shared_memory() + DESK)
    _, _, c0, rows, n = recall(shared_memory() + DESK)
    together = 1 if (w | x | ldx | weight_bytes * k) & 15 == 0 else 0
    left = k - at
    copy_lines(
        stage, w, c0, n, DOWN, weight_bytes * at, weight_bytes * k, weight_bytes * left, STEP * weight_bytes, together
    )
    copy_lines(
        stage + outputs_stage,
        x,
        r0,
        rows,
        2 * many_across,
        input_bytes * at,
        ldx,
        input_bytes * left,
        STEP * input_bytes,
        together,
    )


@device_function_per_dtype
def many_rows(
    y: int, x: int, w: int, bias: int, c0: int, r0: int, rows: int, n: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Multiply 64 rows from r0 on, or 32, by 128 rows of weights from c0 on.

    Shapes: as ``few_rows``.
    """
    lane, down, across = thread_index() % WARP, thread_index() // WARP % 4, thread_index() // WARP // 4
    row, four = lane // 4, lane % 4
    place, depth = shared_memory(), int(stages)
    leave(place + DESK, y, bias, c0, rows, n)
    leave_sources(place + DESK, x, w, r0, ldx)
    syncthreads()
    own_w = STEP * weight_bytes * (32 * down + row) + (32 * four ^ (row & 1) * 16 if weight_bytes == 4 else 16 * four)
    own_x = STEP * input_bytes * (many_across * across + row) + (
        32 * four ^ (row & 1) * 16 if input_bytes == 4 else 16 * four
    )
    steps, left = (k + STEP - 1) // STEP, stretch(k) // STEP
    for i in range(depth - 1):
        if i < steps:
            fill(place + i * stage_bytes, STEP * i, k)
        end_copies()
    sums, total = many_zeros(), many_zeros()
    i, stage, free = 0, 0, depth - 1
    while i < steps:
        wait_stage()
        syncthreads()
        if i + depth - 1 < steps:
            fill(place + free * stage_bytes, STEP * (i + depth - 1), k)
        end_copies()
        at = place + stage * stage_bytes
        sums = many_step(sums, at + own_w, at + outputs_stage + own_x)
        free = stage
        stage = stage + 1 if stage + 1 < depth else 0
        i += 1
        left -= 1
        if left == 0 or i == steps:
            total, sums, left = add_many(total, sums), many_zeros(), stretch(k) // STEP
    wait_all()
    syncthreads()
    put_many(place + 4 * ((many_across * across + 2 * four) * MANY_LINE + 32 * down + row), total)
    syncthreads()
    y, bias, c0, rows, n = recall(place + DESK)
    _, _, r0, _ = sources(place + DESK)
    i = thread_index()
    while i < 2 * many_across * DOWN:
        r, c = i // DOWN, i % DOWN
        if r0 + r < rows and c0 + c < n:
            value = get_shared_f32(place + 4 * (r * MANY_LINE + c))
            finish(y + 4 * ((r0 + r) * ldy + c0 + c), value, bias, c0 + c, add)
        i += BLOCK
    syncthreads()


@device_function
def few_float_units(rows: int, n: int) -> int:
    """Return how many units of work a matrix is for up to FEW rows: one for each sixteen of them."""
    return (n + OUTPUTS - 1) // OUTPUTS * ((rows + 15) // 16)


@device_function_per_dtype
def few_float_unit(
    y: int, x: int, w: int, bias: int, unit: int, rows: int, n: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Do one unit of ``few_float_units``.

    Shapes: as ``few_rows``.
    """
    if rows <= 8:
        few_1(y, x, w, bias, OUTPUTS * unit, rows, n, k, ldy, ldx, add)
    else:
        passes = (rows + 15) // 16
        r = unit % passes * 16  # blocks beside each other read the same weights
        few_2(y + 4 * r * ldy, x + r * ldx, w, bias, OUTPUTS * (unit // passes), rows - r, n, k, ldy, ldx, add)


@device_function_per_dtype
def many_float_units(rows: int, n: int) -> int:
    """Return how many units of work a matrix is for more rows."""
    return (n + DOWN - 1) // DOWN * ((rows + 2 * many_across - 1) // (2 * many_across))


@device_function_per_dtype
def many_float_unit(
    y: int, x: int, w: int, bias: int, unit: int, rows: int, n: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Do one unit of ``many_float_units``.

    Shapes: as ``few_rows``.
    """
    tiles = (rows + 2 * many_across - 1) // (2 * many_across)
    many_rows(y, x, w, bias, DOWN * (unit // tiles), 2 * many_across * (unit % tiles), rows, n, k, ldy, ldx, add)
