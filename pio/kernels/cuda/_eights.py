"""Eight neighbours of a row that a lane multiplies, as words: read when they are first asked for, or one by one."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from typing import Any

from pio.kernels.cuda.ptx.emit import GLOBAL, I16, I32, SHARED, Words, i32, i64, load_at, read_once, read_words


class Eight:
    """Eight neighbours as words, read sixteen bytes at a time when they are first asked for.

    In shared memory the two halves of 32 bytes may be exchanged, as bit 4 of the address says.
    """

    def __init__(self, b: Any, address: Any, itemsize: int, space: int, once: bool = False) -> None:
        self._b, self._address, self._space, self.itemsize, self._once = b, address, space, itemsize, once
        self._read: dict[int, Words] = {}

    def half(self, i: int) -> Words:
        """Return four words."""
        found = self._read.get(i)
        if found is None:
            b, shared = self._b, self._space == SHARED
            place = self._address if i == 0 else (b.xor if shared else b.add)(self._address, i64(16))
            found = read_once(b, place) if self._once else read_words(b, place, 4, self._space)
            self._read[i] = found
        return found

    def words(self, first: int, count: int) -> Words:
        """Return the words of some neighbours, none of which are in both halves."""
        i, n = first * self.itemsize // 4, count * self.itemsize // 4
        return self.half(i // 4)[i % 4 : i % 4 + n]


class Given(Eight):
    """Eight neighbours that are known."""

    def __init__(self, words: Words, itemsize: int) -> None:
        self.itemsize = itemsize
        self._read = {i: words[4 * i : 4 * i + 4] for i in range(len(words) // 4)}


def eight_of(b: Any, row: Any, at: Any, k: Any, itemsize: int) -> Eight:
    """Eight neighbours of a row, one by one, zeros from k on."""
    ty, found = (I16, I32)[itemsize // 4], []
    for i in range(8):
        place = b.add(at, i64(i))
        inside = b.icmp_signed("<", place, k)
        safe = b.select(inside, place, i64(0))
        value = load_at(b, b.add(row, b.mul(safe, i64(itemsize))), ty, itemsize, GLOBAL)
        found.append(b.select(inside, b.zext(value, I32) if itemsize == 2 else value, i32(0)))
    if itemsize == 4:
        return Given(found, itemsize)
    return Given([b.or_(found[2 * i], b.shl(found[2 * i + 1], i32(16))) for i in range(4)], itemsize)
