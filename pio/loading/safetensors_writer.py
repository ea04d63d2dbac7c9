"""Safetensors files written from front to back: the header first, then one tensor after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pio.dtypes import DType
from pio.errors import CheckpointError
from pio.loading.safetensors_header import MAX_BYTES
from pio.tensor import Tensor

ALIGNMENT = 64


class TensorHeader(NamedTuple):
    """What the header of a file says of a tensor that will be written."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return prod(self.shape) * self.dtype.itemsize


def aligned_order(tensors: Sequence[TensorHeader]) -> list[TensorHeader]:
    """Return them in the order in which each begins at a multiple of 64 bytes, or at least of its elements' size.

    The format allows no gaps: those of whole cache lines come first, as they were, then the widest elements.
    """
    return sorted(tensors, key=lambda t: -ALIGNMENT if t.nbytes % ALIGNMENT == 0 else -t.dtype.itemsize)


def header_bytes(header: Mapping[str, object]) -> bytes:
    """Return what a file begins with: the length of its header, and the header, behind which data begin aligned."""
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-(8 + len(raw)) % ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw


class SafetensorsWriter:
    """A file of tensors that are known before they are there; a context that leaves the file on the disk.

    Args:
        path: The file, which must not exist.
        tensors: What ``write`` will be called with, in this order.
        metadata: Strings to store under ``__metadata__``.

    Raises:
        CheckpointError: The header would be too long.
        OSError: The file could not be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], tensors: Sequence[TensorHeader], metadata: Mapping[str, str] | None = None
    ) -> None:
        header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        position = 0
        for name, dtype, shape in tensors:
            end = position + prod(shape) * dtype.itemsize
            header[name] = {"dtype": dtype.safetensors, "shape": list(shape), "data_offsets": [position, end]}
            position = end
        raw = header_bytes(header)
        if len(raw) - 8 > MAX_BYTES:
            raise CheckpointError(
                f"{Path(path)}: the header would take {len(raw) - 8} bytes, at most {MAX_BYTES}; use more files"
            )
        self._file = open(path, "xb")
        self._file.write(raw)

    def write(self, tensor: Tensor) -> None:
        """Write the next tensor; a strided one is made contiguous."""
        if tensor.size:
            self._file.write(tensor.contiguous().memoryview().cast("B"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
