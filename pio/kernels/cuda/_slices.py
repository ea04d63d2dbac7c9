"""What kernels read of a batch, as ``pio.kernels._slices``."""

from __future__ import annotations

from typing import TypeVar

from pio.kernels._batch_record import BLOCKS, PAST, SEQUENCES, SLOTS, SOURCES, STARTS, TABLES, TENTATIVE
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda.ptx import (
    block_size,
    get_i32,
    get_i64,
    get_shared_i32,
    put_shared_i32,
    shared_memory,
    syncthreads,
    thread_index,
)

T = TypeVar("T")


def in_format(floats: PerDtype[T], int8: T) -> PerDtype[T]:
    """Choose by the format of a cache: what there is for each type of floats, or what there is for any kind of int8."""
    return PerDtype(lambda kind: int8 if kind.startswith("int8") else floats[kind])


@device_function
def sequences_of(batch: int) -> int:
    """Return how many sequences a batch has."""
    return get_i64(batch + SEQUENCES)


@device_function
def start_of(batch: int, s: int) -> int:
    """Return where the tokens of a sequence begin; those of the sequence behind the last begin where all end."""
    return get_i32(batch + get_i64(batch + STARTS) + 4 * s)


@device_function
def past_of(batch: int, s: int) -> int:
    """Return how many tokens of a sequence came before."""
    return get_i32(batch + get_i64(batch + PAST) + 4 * s)


@device_function
def slot_of(batch: int, s: int) -> int:
    """Return in which slot the state of a sequence lies."""
    return get_i32(batch + get_i64(batch + SLOTS) + 4 * s)


@device_function
def tentative_of(batch: int, s: int) -> int:
    """Return where in the window the tokens of a sequence are kept that must not move its states; else -1."""
    return get_i32(batch + get_i64(batch + TENTATIVE) + 4 * s)


@device_function
def source_of(batch: int, s: int) -> int:
    """Return from which slot the state of a sequence comes."""
    return get_i32(batch + get_i64(batch + SOURCES) + 4 * s)


@device_function
def table_of(batch: int, s: int) -> int:
    """Return the address of a sequence's cache blocks, int32 each."""
    return batch + get_i64(batch + TABLES) + 4 * s * get_i64(batch + BLOCKS)


@device_function
def sequence_of(batch: int, t: int) -> int:
    """Return which sequence a token belongs to, by halving."""
    low, high = 0, sequences_of(batch)
    while high - low > 1:
        middle = (low + high) >> 1
        if start_of(batch, middle) <= t:
            low = middle
        else:
            high = middle
    return low


@device_function
def borrows(batch: int, s: int) -> bool:
    """Whether a sequence takes its state from a slot that is another sequence's: then one must go before the other."""
    source, other = source_of(batch, s), 0
    if source == slot_of(batch, s):
        return False
    while other < sequences_of(batch):
        if other != s and slot_of(batch, other) == source:
            return True
        other += 1
    return False


@device_function
def in_order(batch: int) -> bool:
    """Whether sequences must be walked one after the other; all threads of the block must ask.

    Takes the first four bytes of shared memory; whoever uses them next may at once.
    """
    flag, s = shared_memory(), thread_index()
    if s == 0:
        put_shared_i32(flag, 0)
    syncthreads()
    while s < sequences_of(batch):
        if borrows(batch, s):
            put_shared_i32(flag, 1)
        s += block_size()
    syncthreads()
    found = get_shared_i32(flag) != 0
    syncthreads()
    return found
