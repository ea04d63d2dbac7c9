"""What kernels read of a batch: one record of whose tokens stand where, and what walks over paged caches share."""

from __future__ import annotations

from typing import TypeVar

from pio.kernels._batch_record import BLOCKS, PAST, SEQUENCES, SLOTS, SOURCES, STARTS, TABLES, TENTATIVE
from pio.kernels._jit import PerDtype, kernel
from pio.kernels.simd import get_i32, get_i64
from pio.kernels.sizes import PARTS

T = TypeVar("T")


def in_format(floats: PerDtype[T], int8: T) -> PerDtype[T]:
    """Choose by the format of a cache: what there is for each type of floats, or what there is for int8."""
    return PerDtype(lambda kind: int8 if kind == "int8" else floats[kind])


@kernel
def sequences_of(batch: int) -> int:
    """Return how many sequences a batch has.

    Shapes: batch int64 (FIELDS,), the record.
    """
    return get_i64(batch + SEQUENCES)


@kernel
def start_of(batch: int, s: int) -> int:
    """Return where the tokens of a sequence begin; those of the sequence behind the last begin where all end.

    Shapes: batch int64 (FIELDS,), whose starts are int32 (S + 1,).
    """
    return get_i32(batch + get_i64(batch + STARTS) + 4 * s)


@kernel
def past_of(batch: int, s: int) -> int:
    """Return how many tokens of a sequence came before.

    Shapes: batch int64 (FIELDS,), whose past is int32 (S,).
    """
    return get_i32(batch + get_i64(batch + PAST) + 4 * s)


@kernel
def slot_of(batch: int, s: int) -> int:
    """Return in which slot the state of a sequence lies.

    Shapes: batch int64 (FIELDS,), whose slots are int32 (S,), pairwise different.
    """
    return get_i32(batch + get_i64(batch + SLOTS) + 4 * s)


@kernel
def tentative_of(batch: int, s: int) -> int:
    """Return where in the window the tokens of a sequence are kept that must not move its states; else -1.

    Shapes: batch int64 (FIELDS,), whose tentative is int32 (S,).
    """
    return get_i32(batch + get_i64(batch + TENTATIVE) + 4 * s)


@kernel
def source_of(batch: int, s: int) -> int:
    """Return from which slot the state of a sequence comes: its own, or one that a sequence before it leaves behind.

    Shapes: batch int64 (FIELDS,), whose sources are int32 (S,).
    """
    return get_i32(batch + get_i64(batch + SOURCES) + 4 * s)


@kernel
def table_of(batch: int, s: int) -> int:
    """Return the address of a sequence's cache blocks, int32 each.

    Shapes: batch int64 (FIELDS,), whose tables are int32 (S, BLOCKS).
    """
    return batch + get_i64(batch + TABLES) + 4 * s * get_i64(batch + BLOCKS)


@kernel
def turn_of(part: int, parts: int) -> int:
    """Return which turn is a part's when pieces are dealt: the first part of every thread gets one, then the second.

    Shapes: none; parts is 1 or PARTS for each thread.
    """
    return part % PARTS * max(1, parts // PARTS) + part // PARTS
