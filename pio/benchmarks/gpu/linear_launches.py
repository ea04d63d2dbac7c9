"""Launches of linear layers for one row: of one input, of experts, of heads, and what brings rows into their form.

The numbers follow ``pio/kernels/cuda``: a unit of few rows is sixteen outputs of floats or 32 of packed weights, over
all inputs; each of its eight warps takes an eighth of them, and asks for so many before it waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Final

from pio.benchmarks.gpu.launch import Launch
from pio.ops.quantized import FORMATS, packed_shape

ITEMSIZE: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
WARPS: Final = 8  # stretches of inputs
ROWS: Final = 8  # of a tile, of which a token fills one
PARTS: Final = {"float32": 3, "float16": 2, "bfloat16": 2}  # products for each, as numbers are the sum of two
OUTPUTS, WIDE, STEP, PAIR = 16, 32, 32, 64
UNIT_WAITS: Final = 4  # the record of the matrix, the row, the sums of the warps, and the end of the block


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
        ahead, each = 16 // FORMATS[form].bits, 2 * FORMATS[form].pair_bytes
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


def linears(what: str, form: str, outputs: Sequence[int], k: int) -> list[Launch]:
    """Return the launches of layers of one input: packed weights want the row quantized first."""
    made = product("_linears.linears", what, form, outputs, k)
    return [quantized(what, form, k), made] if form in FORMATS else [made]


def quantized(what: str, form: str, k: int, rows: int = 1) -> Launch:
    """Return the launch that quantizes rows."""
    return Launch(f"quantize.quantize[{form}]", f"row of {what}", items=rows * ceil(k / (PAIR * WARPS)), near=4)


def experts(what: str, form: str, n: int, k: int, chosen: int, matrices: int) -> Launch:
    """Return the launch of a projection, or of two, of the experts that a token chose."""
    made = product("experts.experts_linear", what, form, [n] * (chosen * matrices), k)
    return replace(made, near=UNIT_WAITS + 3)  # where experts begin, the search for a unit's one, where its matrix is


def head_linears(what: str, form: str, heads: int, n: int, k: int) -> list[Launch]:
    """Return the launches of a matrix for each head."""
    if form not in FORMATS:
        return [product("head_linear.head_linear", what, form, [n] * heads, k)]
    rows = Launch(f"head_linear.quantize_heads[{form}]", f"rows of {what}", heads * ceil(k / (PAIR * WARPS)), near=4)
    return [rows, product("head_linear.quantized_head_linear", what, form, [n] * heads, k)]
