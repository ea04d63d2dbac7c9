"""Hypothesis strategies for sizes, numbers and tensors."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from math import prod
from typing import Any

from hypothesis import strategies as st

from pio.dtypes import ALL
from pio.tensor import Tensor

FLOATS = ("float32", "float16", "bfloat16")
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0)

float_types = st.sampled_from(FLOATS)
any_types = st.sampled_from([d.name for d in ALL])


def sizes(*ranges: tuple[int, int]) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw one size from each range (ends included), no two equal, so that no mix-up of axes goes unnoticed."""
    return st.tuples(*(st.integers(*r) for r in ranges)).filter(lambda drawn: len(set(drawn)) == len(drawn))


@st.composite
def numbers(draw: st.DrawFn, count: int, *, special: Sequence[float] = ()) -> list[float]:
    """Draw numbers around zero of one magnitude, some replaced by special ones."""
    source = random.Random(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from((1.0, 0.01, 30.0)))
    out = [source.gauss(0.0, scale) for _ in range(count)]
    if special and count:
        for place in draw(st.lists(st.integers(0, count - 1), max_size=3)):
            out[place] = draw(st.sampled_from(special))
    return out


@st.composite
def tensors(draw: st.DrawFn, shape: Sequence[int], dtype: str = "float32", *, special: Sequence[float] = ()) -> Tensor:
    """Draw a contiguous tensor of floats."""
    flat = draw(numbers(prod(shape), special=special))
    return Tensor.from_list(flat, dtype).reshape(*shape)


@st.composite
def indices(draw: st.DrawFn, count: int, below: int) -> Tensor:
    """Draw a vector of indices, int32 or int64, which may repeat."""
    drawn = draw(st.lists(st.integers(0, below - 1), min_size=count, max_size=count))
    return Tensor.from_list(drawn, draw(st.sampled_from(("int32", "int64"))))


@st.composite
def views(draw: st.DrawFn, x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Draw a copy of x with gaps: along each of the axes, all by default, it is a slice of something longer."""
    widen = [axes is None or axis in axes for axis in range(x.ndim)]
    starts, ends = ([draw(st.integers(0, 3)) if w else 0 for w in widen] for _ in range(2))
    wide = Tensor.zeros([a + n + b for a, n, b in zip(starts, x.shape, ends, strict=True)], x.dtype)
    key: Any = tuple(slice(a, a + n) for a, n in zip(starts, x.shape, strict=True))
    return wide[key].copy_(x)
