"""Numbers to compute with, the same on every device: floats in no order, matrices of every form, sequences."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import ceil, prod
from typing import Any, Final, TypeAlias

from pio import dtypes, ops
from pio.benchmarks.random_model import repeat
from pio.device import Device
from pio.dtypes import int32, int64
from pio.ops.attention import BLOCK_SIZE
from pio.ops.quantized import FORMATS
from pio.ops.slices import Slices
from pio.tensor import Tensor

_BLOCK: Final = (1 << 14) + 27  # numbers before they repeat, a length that no row has
Matrix: TypeAlias = "Tensor | ops.PackedWeight"


class Numbers:
    """Makes tensors on a device; those of equal arguments hold equal numbers, whatever the device is.

    Attributes:
        device: Where they lie.
        cold: Bytes of matrices among which a measurement takes turns; 0 takes one each.
    """

    _blocks: dict[tuple[str, int], Tensor] = {}  # noqa: RUF012  shared by all, for they are the same
    _packed: dict[Any, ops.PackedWeight] = {}  # noqa: RUF012  as quantizing takes long

    def __init__(self, device: Device, cold: int = 0) -> None:
        """Make none yet."""
        self.device, self.cold = device, cold

    @classmethod
    def forget(cls) -> None:
        """Let go of what is kept for others."""
        cls._packed.clear()
        cls._blocks.clear()

    def floats(self, *shape: int, seed: int = 1, dtype: str = "float32") -> Tensor:
        """Return floats of deviation one."""
        return self._filled(shape, seed, dtype).to(self.device)

    def whole(self, *values: int, wide: bool = False) -> Tensor:
        """Return whole numbers, int32 or int64."""
        return Tensor.from_list(list(values), int64 if wide else int32).to(self.device)

    def empty(self, *shape: int, dtype: str = "float32") -> Tensor:
        """Return memory to write to; it begins as zeros."""
        return Tensor.zeros(shape, dtypes.dtype(dtype), self.device)

    def matrix(self, form: str, n: int, k: int, seed: int = 2) -> Matrix:
        """Return a matrix (n, k) of an element type or a format; ``rounded`` is one of bfloat16."""
        if form not in FORMATS:
            return self.floats(n, k, seed=seed, dtype="bfloat16" if form == "rounded" else form)
        return self._pack(form, (n, k), seed).to(self.device)

    def heads(self, form: str, heads: int, n: int, k: int, seed: int = 2) -> Matrix:
        """Return a matrix (n, k) for each head."""
        if form not in FORMATS:
            return self.floats(heads, n, k, seed=seed, dtype=form)
        return self._pack(form, (heads, n, k), seed).to(self.device)

    def _pack(self, form: str, shape: tuple[int, ...], seed: int) -> ops.PackedWeight:
        found = self._packed.get((form, shape, seed))
        if found is None:
            stored = self._filled(shape, seed, "float32")
            found = ops.pack(stored, form) if len(shape) == 2 else ops.pack_heads(stored, form)
            self._packed[form, shape, seed] = found
        return found

    def copies(self, matrix: Matrix) -> list[Matrix]:
        """Return a matrix and as many copies as cold memory takes."""
        count = max(1, ceil(self.cold / matrix.nbytes)) if self.cold else 1
        return [matrix, *(copied(matrix) for _ in range(count - 1))]

    def sequence(self, *tokens_and_past: tuple[int, int]) -> tuple[Slices, list[range]]:
        """Return sequences of so many tokens behind so many, and the blocks of a cache that each of them has."""
        need = [ceil((tokens + past) / BLOCK_SIZE) for tokens, past in tokens_and_past]
        made = Slices(len(need), max(need), device=self.device)
        first, tables = 0, list[range]()
        for i, ((tokens, past), blocks) in enumerate(zip(tokens_and_past, need, strict=True)):
            tables.append(range(first + blocks - 1, first - 1, -1))  # backwards: where a block lies is the table's word
            made.append(tokens, past, tables[-1], i)
            first += blocks
        made.send()
        return made, tables

    def _filled(self, shape: Sequence[int], seed: int, dtype: str) -> Tensor:
        tensor = Tensor.empty(tuple(shape), dtypes.dtype(dtype), Device("cpu"))
        if prod(shape):
            repeat(self._block(dtype, seed), tensor)
        return tensor

    def _block(self, dtype: str, seed: int) -> Tensor:
        found = self._blocks.get((dtype, seed))
        if found is None:
            gauss = random.Random(seed).gauss
            values = Tensor.from_list([gauss(0.0, 1.0) for _ in range(_BLOCK)], device=Device("cpu"))
            found = self._blocks[dtype, seed] = values.astype(dtypes.dtype(dtype))
        return found


def copied(matrix: Matrix) -> Matrix:
    """Return the same numbers in memory of their own."""
    if isinstance(matrix, Tensor):
        return matrix.clone()
    return ops.PackedWeight(matrix.data.clone(), matrix.form.name, matrix.shape)
