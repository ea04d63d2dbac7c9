"""Bytes of blocks and slots, which lie in several tensors: in place where this process has them, copied for a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol

from pio.memory.storage import Storage
from pio.tensor import Tensor


class PoolBytes(Protocol):
    """Some tensors whose first axis counts blocks, or slots: what of all of them is one block, as bytes.

    Attributes:
        nbytes: Bytes of a block.
    """

    nbytes: int

    def copy_out(self, index: int, target: memoryview) -> None:
        """Write a block's bytes, as all that was asked for by now leaves them, to memory of this process.

        Args:
            index: Which one.
            target: As many bytes, writable.

        Raises:
            PioError: The tensors were freed.
        """
        ...

    def rooms(self, index: int) -> list[memoryview]:
        """Return memory for other bytes of a block, tensor by tensor; what is written there counts once ``put`` ran.

        Raises:
            PioError: The tensors were freed.
            OutOfMemoryError: There is no memory for it.
        """
        ...

    def put(self, index: int, rooms: Sequence[memoryview]) -> None:
        """Let a block hold what was written to the rooms that were made for it."""
        ...


def pool_bytes(tensors: Sequence[Tensor]) -> PoolBytes:
    """Return the bytes of tensors of one device.

    Args:
        tensors: Contiguous; the first axis of all of them counts the same blocks or slots.
    """
    return _Here(tensors) if tensors[0].device.stream is None else _OnGpu(tensors)


class _Here:
    """Memory of this process: rooms are the blocks themselves. The views keep the memory."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._views = [(t.storage.memoryview(t.address, t.nbytes), t.nbytes // t.shape[0]) for t in tensors]
        self.nbytes = sum(nbytes for _, nbytes in self._views)

    def copy_out(self, index: int, target: memoryview) -> None:
        at = 0
        for piece in self.rooms(index):
            target[at : at + len(piece)] = piece
            at += len(piece)

    def rooms(self, index: int) -> list[memoryview]:
        return [view[index * nbytes : (index + 1) * nbytes] for view, nbytes in self._views]

    def put(self, index: int, rooms: Sequence[memoryview]) -> None:
        pass  # they are the block itself


class _OnGpu:
    """Memory of a GPU: rooms are memory of this process, from which a copy goes there and nobody waits."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        stream = tensors[0].device.stream
        assert stream is not None
        self._tensors, self._stream = tensors, stream
        self._sizes = [tensor.nbytes // tensor.shape[0] for tensor in tensors]
        self.nbytes = sum(self._sizes)

    def copy_out(self, index: int, target: memoryview) -> None:
        at = _address(target)
        pieces = list[tuple[int, int, int]]()
        for source, nbytes in self._pieces(index):
            pieces.append((at, source, nbytes))
            at += nbytes
        self._stream.copy_out_all(pieces)

    def rooms(self, index: int) -> list[memoryview]:
        whole = Storage.allocate(self.nbytes, what="what is read for a GPU").memoryview()
        found, at = list[memoryview](), 0
        for nbytes in self._sizes:
            found.append(whole[at : at + nbytes])
            at += nbytes
        return found

    def put(self, index: int, rooms: Sequence[memoryview]) -> None:
        for (target, nbytes), room in zip(self._pieces(index), rooms, strict=True):
            self._stream.copy_in(target, _address(room), nbytes)

    def _pieces(self, index: int) -> list[tuple[int, int]]:
        """Where a block's bytes lie in each tensor, and how many they are."""
        return [(t.address + index * nbytes, nbytes) for t, nbytes in zip(self._tensors, self._sizes, strict=True)]


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
