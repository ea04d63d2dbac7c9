"""Batches of sequences over paged caches, for kernels of attention on a GPU beside the CPU's operations."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence

from gpu_case import bytes_of, run

from pio import ops
from pio.dtypes import DType, uint8
from pio.kernels import sizes
from pio.kernels.cuda import attention
from pio.kernels.cuda._jit import CudaKernel
from pio.ops.attention import BLOCK_SIZE as BLOCK
from pio.ops.attention import attention_scratch, cache_layout
from pio.ops.pages import Pages
from pio.ops.slices import Slices
from pio.tensor import Tensor


def some(rng: random.Random, *shape: int, spread: float = 1.0) -> Tensor:
    """Random numbers."""
    values = [rng.gauss(0, spread) for _ in range(math.prod(shape))]
    return Tensor.from_list(values).reshape(*shape)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors behind each other."""
    whole, at = Tensor.empty((sum(t.shape[0] for t in tensors), *tensors[0].shape[1:])), 0
    for t in tensors:
        whole[at : at + t.shape[0]].copy_(t)
        at += t.shape[0]
    return whole


def garbage(shape: Sequence[int], dtype: DType) -> Tensor:
    """Memory of a cache that nobody has written yet: it would spoil whatever it met."""
    if dtype is uint8:
        return Tensor.full(tuple(shape), 255, dtype)
    return Tensor.full(tuple(shape), math.nan, dtype)


def held_record(*values: float) -> Tensor:
    """A record that kernels read, as a tensor."""
    packed = struct.pack("".join("d" if type(v) is float else "q" for v in values), *values)
    return Tensor.from_list(list(packed), "uint8")


def scratch_with(room: int, rows: int, width: int, multiprocessors: int) -> Tensor:
    """Scratch of attention with so many bytes for runs of split sequences; what has to be zero is, the rest is not."""
    blocks = sizes.GPU_BLOCKS * multiprocessors
    floats = sizes.GPU_COUNTERS + blocks * rows * (width + 2) + room // 4
    scratch = Tensor.full((-(-floats // 4) * 4,), math.nan)
    scratch[: sizes.GPU_COUNTERS].fill_(0.0)
    return scratch


class Case:
    """Sequences of some lengths whose blocks lie anywhere, with random keys and values."""

    def __init__(
        self, lengths: Sequence[int], kv_heads: int, group: int, head_dim: int, format: str, seed: int = 1
    ) -> None:
        rng = random.Random(seed)
        self.kv_heads, self.group, self.head_dim, self.format = kv_heads, group, head_dim, format
        counts = [-(-length // BLOCK) for length in lengths]
        self.blocks = sum(counts) + 2
        free = list(range(self.blocks))
        rng.shuffle(free)
        self.tables = [[free.pop() for _ in range(count)] for count in counts]
        stored, keys, values = cache_layout(format, self.blocks, kv_heads, head_dim)
        self.keys, self.values = garbage(keys, stored), garbage(values, stored)
        self.scratch = attention_scratch(head_dim)
        self.k = [some(rng, length, kv_heads, head_dim) for length in lengths]
        self.v = [some(rng, length, kv_heads, head_dim) for length in lengths]
        self.q = [some(rng, length, kv_heads * group, head_dim, spread=2.0) for length in lengths]

    def pages(self) -> tuple[Tensor, Tensor]:
        """Keys and values as operations take them."""
        if self.format != "int8":
            return self.keys, self.values
        return Pages.of(self.keys, "int8"), Pages.of(self.values, "int8")

    def batch(self, *parts: tuple[int, int, int]) -> Slices:
        """A batch of (sequence, first position, last position)."""
        made = Slices(len(parts), max(map(len, self.tables)))
        for s, first, last in parts:
            made.append(last - first, first, self.tables[s])
        return made

    def gather(self, of: list[Tensor], parts: Sequence[tuple[int, int, int]]) -> Tensor:
        """The rows of a batch's tokens, side by side."""
        return joined([of[s][first:last] for s, first, last in parts])

    def fill(self) -> None:
        """Store all keys and values by the CPU's operation."""
        parts = [(s, 0, k.shape[0]) for s, k in enumerate(self.k)]
        batch = self.batch(*parts)
        ops.write_cache(*self.pages(), self.gather(self.k, parts), self.gather(self.v, parts), batch, self.scratch)

    def write(self, *parts: tuple[int, int, int]) -> None:
        """Store keys and values by the GPU's kernel."""
        batch, k, v = self.batch(*parts), self.gather(self.k, parts), self.gather(self.v, parts)
        values = batch.record, 0, 0, self.kv_heads, self.head_dim
        run(attention.write_cache[self.format], self.keys, self.values, k, v, *values, reading=(k, v))

    def attend(
        self, *parts: tuple[int, int, int], causal: bool = True, window: int = 0, room: int = 0,
        multiprocessors: int = 1, kernel: CudaKernel | None = None,
    ) -> Tensor:  # fmt: skip
        """Run the GPU's kernel; room is how many bytes of scratch it has for runs of split sequences."""
        q = self.gather(self.q, parts)
        batch, out = self.batch(*parts), Tensor.full(q.shape, 7.0)
        scratch = scratch_with(room, sizes.GPU_ROWS, self.head_dim, multiprocessors)
        factor = self.head_dim**-0.5
        shape = held_record(scratch.nbytes // 4, self.kv_heads, self.group, self.head_dim, int(causal), window, factor)
        keys, values = self.keys, self.values
        run(
            kernel or attention.attention[self.format], out, q, keys, values, batch.record, scratch, shape,
            reading=(q, keys, values),
            multiprocessors=multiprocessors,
        )  # fmt: skip
        assert bytes_of(scratch)[: 4 * sizes.GPU_COUNTERS] == bytes(4 * sizes.GPU_COUNTERS)
        return out

    def wanted(self, *parts: tuple[int, int, int], causal: bool = True, window: int = 0) -> list[float]:
        """What the CPU's operation gives."""
        q = self.gather(self.q, parts)
        out = Tensor.empty(q.shape)
        ops.paged_attention(
            q, *self.pages(), self.batch(*parts), self.scratch, out=out, causal=causal, window=window or None
        )
        return out.reshape(-1).tolist()


class FarCase(Case):
    """A sequence so long that its keys and values are few ones, met again and again; queries are of its last tokens."""

    def __init__(self, length: int, kv_heads: int, group: int, head_dim: int, format: str) -> None:
        super().__init__([9 * BLOCK], kv_heads, group, head_dim, format)
        self.fill()
        rng = random.Random(length)
        self.first = length - self.q[0].shape[0]
        self.tables[0] = [rng.choice(self.tables[0]) for _ in range(-(-length // BLOCK))]

    def gather(self, of: list[Tensor], parts: Sequence[tuple[int, int, int]]) -> Tensor:
        """The rows of a batch's tokens, of queries those of the last ones."""
        before = self.first if of is self.q and hasattr(self, "first") else 0
        return super().gather(of, [(s, first - before, last - before) for s, first, last in parts])
