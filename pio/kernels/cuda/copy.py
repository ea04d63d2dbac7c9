"""Copies between any two element types and any strides, as ``pio.kernels.copy``."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function, device_function_per_dtype
from pio.kernels.cuda._moves import alike, from_size, move, to_size
from pio.kernels.cuda.ptx import block_index, block_size, get_i64, grid_size, move_sixteen, quotient, thread_index

LONG = 128  # elements of a line that threads of a block take side by side
AXIS = 24  # bytes of an axis in the record
SIXTEEN = 16  # bytes that are moved at once


@device_function
def line_at(box: int, line: int) -> tuple[int, int]:
    """Return where line number ``line`` of the box begins in target and source, in elements.

    Shapes: box int64 (6, 3), as ``copy``; the last axis runs along lines.
    """
    to = at = 0
    for axis in range(4, -1, -1):
        n = get_i64(box + AXIS * axis)
        if n != 1:
            outer = quotient(line, n)
            i = line - outer * n
            to += i * get_i64(box + AXIS * axis + 8)
            at += i * get_i64(box + AXIS * axis + 16)
            line = outer
    return to, at


@device_function_per_dtype
def whole_lines(to: int, at: int, box: int) -> bool:
    """Return whether lines can be moved sixteen bytes at once: alike, contiguous and aligned, all of them."""
    n = get_i64(box + AXIS * 5)
    if int(alike) == 0 or get_i64(box + AXIS * 5 + 8) != 1 or get_i64(box + AXIS * 5 + 16) != 1:
        return False
    bits = to | at | n * to_size
    for axis in range(5):
        if get_i64(box + AXIS * axis) != 1:
            bits |= get_i64(box + AXIS * axis + 8) * to_size | get_i64(box + AXIS * axis + 16) * to_size
    return bits % SIXTEEN == 0


@device_function_per_dtype
def copy_sixteens(to: int, at: int, box: int, lines: int) -> None:
    """Copy lines sixteen bytes at once: all sixteens of all lines are dealt to threads.

    Shapes: box int64 (6, 3), as ``copy``.
    """
    pieces = quotient(get_i64(box + AXIS * 5) * to_size, SIXTEEN)
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < lines * pieces:
        line = quotient(item, pieces)
        i = SIXTEEN * (item - line * pieces)
        there, here = line_at(box, line)
        move_sixteen(to + to_size * there + i, at + to_size * here + i)
        item += step


@device_function_per_dtype
def copy_long_lines(to: int, at: int, box: int, lines: int) -> None:
    """Copy lines that are long enough for a block: stretches of all lines are dealt to blocks.

    Shapes: box int64 (6, 3), as ``copy``.
    """
    n, step, from_step = get_i64(box + AXIS * 5), get_i64(box + AXIS * 5 + 8), get_i64(box + AXIS * 5 + 16)
    length = 4 * block_size()
    stretches = quotient(n + length - 1, length)
    item = block_index()
    while item < lines * stretches:
        line = quotient(item, stretches)
        first = (item - line * stretches) * length
        there, here = line_at(box, line)
        last = min(first + length, n)
        i = first + thread_index()
        while i < last:
            move(to + to_size * (there + i * step), at + from_size * (here + i * from_step))
            i += block_size()
        item += grid_size()


@cuda_kernel_per_dtype
def copy(to: int, at: int, box: int) -> None:
    """Copy six dimensions, converted.

    to[a * t0 + b * t1 + ...] = at[a * f0 + b * f1 + ...]

    Shapes: box int64 (6, 3): for each dimension its length, then its strides in elements, t and f. The two must not
    overlap.
    """
    lines = 1
    for axis in range(5):
        lines *= get_i64(box + AXIS * axis)
    n, step, from_step = get_i64(box + AXIS * 5), get_i64(box + AXIS * 5 + 8), get_i64(box + AXIS * 5 + 16)
    if whole_lines(to, at, box):
        copy_sixteens(to, at, box, lines)
        return
    if n >= LONG:
        copy_long_lines(to, at, box, lines)
        return
    item, threads = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < lines * n:
        line = quotient(item, n)
        i = item - line * n
        there, here = line_at(box, line)
        move(to + to_size * (there + i * step), at + from_size * (here + i * from_step))
        item += threads
