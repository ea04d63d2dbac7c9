"""mma.sync: a product of small matrices spread over the lanes of a warp.

Products are exact. Their sum and the accumulator are added in float64 and rounded once to float32 (or float16): NVIDIA
says neither in which order hardware adds nor how it rounds on the way, so that results of a GPU may differ in the last
places. tf32 factors lose their lower 13 bits first. Whole numbers wrap around, or saturate with .satfinite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..decoder import Decoder, Step, Values, operation
from ..formats import FP8, narrow16, widen
from ..geometry import WARP
from ..lanes import Lanes
from ..rounding import canonical
from .matrices import whole_warps
from .warps import aligned

Array = np.ndarray[Any, Any]
_ROWS, _COLUMNS = 16, 8


class Factor(NamedTuple):
    """How a register holds elements of a factor: how many, and what turns words into doubles."""

    many: int
    read: Callable[[Array], Array]


def _tf32(words: Array) -> Array:
    return (words & np.uint32(0xFFFFE000)).view("f4").astype("f8")[..., None]


def _halves(kind: str) -> Callable[[Array], Array]:
    return lambda words: widen(words.view("u2"), kind).reshape(*words.shape, 2)


def _bytes(dtype: str) -> Callable[[Array], Array]:
    return lambda words: words.view(dtype).astype("f8").reshape(*words.shape, 4)


def _small(name: str) -> Callable[[Array], Array]:
    return lambda words: FP8[name][words.view("u1")].reshape(*words.shape, 4)


_FACTORS = {
    "f16": Factor(2, _halves("f")),
    "bf16": Factor(2, _halves("bf")),
    "tf32": Factor(1, _tf32),
    "s8": Factor(4, _bytes("i1")),
    "u8": Factor(4, _bytes("u1")),
    "e4m3": Factor(4, _small("e4m3")),
    "e5m2": Factor(4, _small("e5m2")),
}
_DEPTHS = {"m16n8k4": 4, "m16n8k8": 8, "m16n8k16": 16, "m16n8k32": 32}
_PARTNERS = {"s8": ("s8", "u8"), "u8": ("s8", "u8"), "e4m3": ("e4m3", "e5m2"), "e5m2": ("e4m3", "e5m2")}
# Depths that there are, by elements of a register
_KNOWN = {1: (4, 8), 2: (8, 16), 4: (16, 32)}


@operation("mma")
def mma(d: Decoder) -> Step:
    d.need(4)
    if not (d.take("sync") and d.take("aligned")):
        raise d.unknown()
    depth, row, column = _DEPTHS.get(d.take(*_DEPTHS), 0), d.take("row"), d.take("col")
    saturates = bool(d.take("satfinite"))
    names, d.rest[:] = list(d.rest), []
    if len(names) != 4 or not (depth and row and column) or names[1] not in _FACTORS:
        raise d.unknown()
    result, first, second, start = names
    a, b = _FACTORS[first], _FACTORS.get(second)
    integer = first in ("s8", "u8")
    allowed = ("s32",) if integer else ("f32", "f16") if first == "f16" else ("f32",)
    if b is None or second not in _PARTNERS.get(first, (first,)) or result != start or result not in allowed:
        raise d.unknown()
    if depth not in _KNOWN[a.many] or (first.startswith("e") and depth != 32) or (saturates and not integer):
        raise d.unknown()
    registers = depth // (4 * a.many)
    parts = [[d.source(item, "u4") for item in d.vector(n)] for n in (1, 2, 3)]
    targets = [d.target(item, "u4") for item in d.vector(0)]
    packed = result == "f16"
    if [len(part) for part in (*parts, targets)] != [2 * registers, registers, *([2, 2] if packed else [4, 4])]:
        raise d.unknown()
    finish = _finish(result, saturates)
    gather = [_gather(d, part) for part in parts]
    rows = np.array(d.program.registers.rows(targets))[:, None]

    def work(v: Values, s: Lanes) -> None:
        warps = whole_warps(s)
        product = np.matmul(left(gather[0](v, s, warps), a), right(gather[1](v, s, warps), b))
        s.words_by_warp()[rows, warps] = finish(spread(product), gather[2](v, s, warps))

    return aligned(d, work)


def _gather(d: Decoder, slots: list[int]) -> Callable[[Values, Lanes, Array], Array]:
    """Return what gives the words of some slots in some warps, [slots, warps, 32]."""
    found = d.program.registers.rows(slots)
    if not found:
        return lambda v, s, warps: np.stack([s.by_warp(v[slot])[warps] for slot in slots])
    rows = np.array(found)[:, None]
    return lambda v, s, warps: s.words_by_warp()[rows, warps]


def left(words: Array, factor: Factor) -> Array:
    """Gather the left factor, [warps, 16, depth], of words [registers, warps, 32].

    Register r of lane 4 g + t holds elements from column (4 (r / 2) + t) count of row g + 8 (r mod 2).
    """
    registers, warps, _ = words.shape
    elements = factor.read(words).reshape(registers // 2, 2, warps, 8, 4, factor.many)
    return elements.transpose(2, 1, 3, 0, 4, 5).reshape(warps, _ROWS, -1)


def right(words: Array, factor: Factor) -> Array:
    """Gather the right factor, [warps, depth, 8]: as the left one, with columns for rows."""
    registers, warps, _ = words.shape
    elements = factor.read(words).reshape(registers, warps, 8, 4, factor.many)
    return elements.transpose(1, 0, 3, 4, 2).reshape(warps, -1, _COLUMNS)


def spread(product: Array) -> Array:
    """Spread a product [warps, 16, 8] over lanes, [4, warps, 32].

    Element i of lane 4 g + t is row g + 8 (i / 2), column 2 t + i mod 2.
    """
    warps = len(product)
    elements = product.reshape(warps, 2, 8, 4, 2)
    return elements.transpose(1, 4, 0, 2, 3).reshape(4, warps, WARP)


def _finish(result: str, saturates: bool) -> Callable[[Array, Array], Array]:
    """Return what adds products to the words of an accumulator."""

    def whole(product: Array, words: Array) -> Array:
        total = product.astype("i8") + words.view("i4")
        return (np.clip(total, -(2**31), 2**31 - 1) if saturates else total).astype("u4")

    def single(product: Array, words: Array) -> Array:
        total = (product + words.view("f4")).astype("f4")
        return canonical(total.reshape(-1)).view("u4").reshape(words.shape)

    def half(product: Array, words: Array) -> Array:
        warps = words.shape[1]
        before = widen(words.view("u2"), "f").reshape(2, warps, WARP, 2)
        total = product.reshape(2, 2, warps, WARP).transpose(0, 2, 3, 1) + before
        return narrow16(np.ascontiguousarray(total), 0.0, "f").view("u4").reshape(2, warps, WARP)

    return {"s32": whole, "f32": single, "f16": half}[result]
