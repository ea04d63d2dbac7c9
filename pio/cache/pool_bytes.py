"""Bytes of blocks and slots, which lie in several tensors: where they are, and how others come there."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol

from pio.tensor import Tensor


class PoolBytes(Protocol):
    """Some tensors whose first axis counts blocks, or slots: what of all of them is one block, as bytes.

    Attributes:
        nbytes: Bytes of a block.
    """

    nbytes: int

    def pieces(self, index: int) -> list[tuple[int, int]]:
        """Return where a block's bytes lie on their device, tensor by tensor, and how many they are.

        Raises:
            PioError: The tensors were freed, and nothing keeps their memory.
        """
        ...

    def rooms(self, index: int, spare: memoryview) -> list[memoryview]:
        """Return memory for other bytes of a block, tensor by tensor; what is written there counts once ``put`` ran.

        Args:
            index: Which one.
            spare: Memory of this process, as many bytes at least; it is taken where the block lies elsewhere.
        """
        ...

    def put(self, index: int, rooms: Sequence[memoryview]) -> None:
        """Let a block hold what was written to the rooms that were made for it, which are spare again.

        Raises:
            PioError: The tensors were freed.
        """
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
        self._places = [(t.address, t.nbytes // t.shape[0]) for t in tensors]
        self.nbytes = sum(nbytes for _, nbytes in self._places)

    def pieces(self, index: int) -> list[tuple[int, int]]:
        return [(address + index * nbytes, nbytes) for address, nbytes in self._places]

    def rooms(self, index: int, spare: memoryview) -> list[memoryview]:
        return [view[index * nbytes : (index + 1) * nbytes] for view, nbytes in self._views]

    def put(self, index: int, rooms: Sequence[memoryview]) -> None:
        pass  # they are the block itself


class _OnGpu:
    """Memory of a GPU: rooms are spare memory, from which a copy goes there and nobody waits."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        stream = tensors[0].device.stream
        assert stream is not None
        self._tensors, self._stream = tensors, stream
        self._sizes = [tensor.nbytes // tensor.shape[0] for tensor in tensors]
        self.nbytes = sum(self._sizes)

    def rooms(self, index: int, spare: memoryview) -> list[memoryview]:
        found, at = list[memoryview](), 0
        for nbytes in self._sizes:
            found.append(spare[at : at + nbytes])
            at += nbytes
        return found

    def put(self, index: int, rooms: Sequence[memoryview]) -> None:
        for (target, nbytes), room in zip(self.pieces(index), rooms, strict=True):
            self._stream.copy_in(target, ctypes.addressof(ctypes.c_char.from_buffer(room)), nbytes)

    def pieces(self, index: int) -> list[tuple[int, int]]:
        return [(t.address + index * nbytes, nbytes) for t, nbytes in zip(self._tensors, self._sizes, strict=True)]
