"""Launches of linear layers for one row: of one input, of experts, of heads, and what brings rows into their form.

The numbers follow ``pio/kernels/cuda``: a unit of few rows is sixteen outputs of floats or 32 of packed weights, over
all inputs; each of its eight warps takes an eighth of them, and asks for so many before it waits. A row that meets
packed weights is quantized by each block that multiplies it, once or, of experts and heads, for each unit, where the
row has room; else by a launch of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Final

from pio.benchmarks.gpu.launch import Launch
from pio.ops.quantized import FORMATS, gpu_own, packed_shape

ITEMSIZE: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
WARPS: Final = 8  # stretches of inputs
BLOCK: Final = 256  # threads that copy four numbers each
ROWS: Final = 8  # of a tile, of which a token fills one
PARTS: Final = {"float32": 3, "float16": 2, "bfloat16": 2}  # products for each, as numbers are the sum of two
OUTPUTS, WIDE, STEP, PAIR = 16, 32, 32, 64
AHEAD: Final = {"int8": 2, "int4": 3, "int4_zero_point": 2}  # pairs that a warp asks for before it waits
ROUND: Final = 2  # pairs that a warp quantizes together
ROUNDS: Final = 4  # that it asks for before it waits
UNIT_WAITS: Final = 4  # the record of the matrix, the row, the sums of the warps, and the end of the block
OWN_WAITS: Final = UNIT_WAITS - 1  # where the block has quantized the row
EXPERT_WAITS: Final = 3  # where experts begin, the search for a unit's one, where its matrix is


def unit_bytes(form: str, k: int) -> int:
    """Return what a unit of few rows reads."""
    if form in FORMATS:
        return packed_shape((WIDE, k), form)[0] * packed_shape((WIDE, k), form)[1] * FORMATS[form].pair_bytes
    return OUTPUTS * k * ITEMSIZE[form]


def matrix_bytes(form: str, n: int, k: int) -> int:
    """Return the bytes of a matrix."""
    if form in FORMATS:
        blocks, pairs, nbytes = packed_shape((n, k), form)
        return blocks * pairs * nbytes
    return n * k * ITEMSIZE[form]


def _waits(form: str, k: int) -> tuple[int, int]:
    """Return how often a warp waits for weights in a unit, and for how many bytes at a time."""
    if form in FORMATS:
        ahead, each = AHEAD[form], 2 * FORMATS[form].pair_bytes
        own = ceil(ceil(k / PAIR) / WARPS)
    else:
        ahead, each = 8 // ITEMSIZE[form], OUTPUTS * STEP * ITEMSIZE[form]
        own = ceil(k / (WARPS * STEP))
    whole, rest = divmod(own, ahead)
    return whole + rest, ahead * each


def product(kernel: str, what: str, form: str, outputs: Sequence[int], k: int) -> Launch:
    """Return the launch of a kernel that multiplies a row by several matrices of k columns."""
    width = WIDE if form in FORMATS else OUTPUTS
    far, flight = _waits(form, k)
    return Launch(
        f"{kernel}[{form}]",
        what,
        items=sum(ceil(n / width) for n in outputs),
        item_bytes=unit_bytes(form, k),
        nbytes=sum(matrix_bytes(form, n, k) for n in outputs),
        far=far,
        near=UNIT_WAITS,
        flight=flight,
        products=ROWS * sum(outputs) * k * PARTS.get(form, 1),
        arithmetic="int8" if form in FORMATS else "bfloat16" if form == "bfloat16" else "tf32",
    )


def own_product(kernel: str, what: str, form: str, outputs: Sequence[int], k: int) -> Launch:
    """Return the same of a kernel that quantizes the row for each item, while it waits for what it asks for first.

    A warp asks the second-level cache for all weights that it is to read of a unit, and so waits for memory once.
    """
    made = product(kernel, what, form, outputs, k)
    stretch = ceil(ceil(k / PAIR) / WARPS) * WIDE // 16 * FORMATS[form].pair_bytes
    return replace(made, far=1, near=OWN_WAITS + made.far, beside=quantizing(k), flight=stretch)


def quantizing(k: int) -> int:
    """Return how long a block takes to quantize a row of k numbers, in waits for the second-level cache.

    It waits for numbers once in ROUNDS. What it does with those of a round, some ninety instructions of each of sixteen
    warps of a multiprocessor, six shuffles of them in a row, takes about as long as such a wait. All blocks of an H200
    ask for 2 MB of a row of 2,048, which that cache gives in less than two.
    """
    rounds = ceil(ceil(ceil(k / PAIR) / WARPS) / ROUND)
    return ceil(rounds / ROUNDS) + rounds


def own(form: str, k: int) -> bool:
    """Return whether blocks quantize the row that they multiply by matrices of this form."""
    return form in FORMATS and gpu_own(1, k)


def linears(what: str, form: str, outputs: Sequence[int], k: int) -> list[Launch]:
    """Return the launches of layers of one input: packed weights want the row quantized, if it is wide by a launch."""
    if own(form, k):
        return [replace(own_product("_linears.quantizing_linears", what, form, outputs, k), once=True)]
    made = product("_linears.linears", what, form, outputs, k)
    return [quantized(what, form, k), made] if form in FORMATS else [made]


def quantized(what: str, form: str, k: int, rows: int = 1) -> Launch:
    """Return the launch that quantizes rows."""
    return Launch(f"quantize.quantize[{form}]", f"row of {what}", items=rows * ceil(k / (PAIR * WARPS)), near=4)


def experts(what: str, form: str, n: int, k: int, chosen: int, matrices: int) -> list[Launch]:
    """Return the launches of a projection, or of two, of the experts that a token chose.

    Where the projection is the first of a block there are two; the rows of the second are in order already.
    """
    outputs = [n] * (chosen * matrices)
    if own(form, k):
        made = own_product("experts.quantizing_experts", what, form, outputs, k)
        return [replace(made, near=made.near + EXPERT_WAITS)]
    made = product("experts.experts_linear", what, form, outputs, k)
    made = replace(made, near=made.near + EXPERT_WAITS)
    first = [quantized("experts", form, k, 1 if matrices == 2 else chosen)] if form in FORMATS else []
    if matrices == 2:
        first.append(Launch("experts.gather_choices", "rows of experts", ceil(chosen * k / (4 * BLOCK)), near=3))
    return [*first, made]


def head_linears(what: str, form: str, heads: int, n: int, k: int) -> list[Launch]:
    """Return the launches of a matrix for each head."""
    if form not in FORMATS:
        return [product("head_linear.head_linear", what, form, [n] * heads, k)]
    if own(form, k):
        return [own_product("head_linear.quantizing_heads", what, form, [n] * heads, k)]
    rows = Launch(f"head_linear.quantize_heads[{form}]", f"rows of {what}", heads * ceil(k / (PAIR * WARPS)), near=4)
    return [rows, product("head_linear.quantized_head_linear", what, form, [n] * heads, k)]
