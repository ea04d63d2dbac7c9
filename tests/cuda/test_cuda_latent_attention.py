"""Latent attention on a GPU beside the CPU's."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from attention_case import garbage, held_record, joined, scratch_with, some
from gpu_case import bytes_of, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.kernels import sizes
from pio.kernels.cuda import latent_attention
from pio.ops.attention import BLOCK_SIZE as BLOCK
from pio.ops.latent_attention import latent_layout, latent_scratch
from pio.ops.pages import Pages
from pio.ops.slices import Slices
from pio.tensor import Tensor

FORMATS = ("float32", "float16", "bfloat16", "int8")
ERRORS = {"float32": 1e-5, "float16": 3e-6, "bfloat16": 1e-5, "int8": 3e-4}
Part = tuple[int, int, int]


class Latents:
    """Sequences of some lengths whose blocks lie anywhere, with random latents and keys."""

    def __init__(self, lengths: Sequence[int], heads: int, rank: int, rope: int, format: str) -> None:
        rng = random.Random(heads * rank)
        self.heads, self.rank, self.rope, self.format = heads, rank, rope, format
        counts = [-(-length // BLOCK) for length in lengths]
        free = list(range(sum(counts) + 1))
        rng.shuffle(free)
        self.tables = [[free.pop() for _ in range(count)] for count in counts]
        stored, shape = latent_layout(format, sum(counts) + 1, rank, rope)
        self.cache = garbage(shape, stored)
        self.latents = [some(rng, length, rank) for length in lengths]
        self.keys = [some(rng, length, rope) for length in lengths]
        self.q = [some(rng, length, heads, rank + rope, spread=2.0) for length in lengths]

    def batch(self, *parts: Part) -> Slices:
        made = Slices(len(parts), max(map(len, self.tables)))
        for s, first, last in parts:
            made.append(last - first, first, self.tables[s])
        return made

    def gather(self, of: list[Tensor], parts: Sequence[Part]) -> Tensor:
        return joined([of[s][first:last] for s, first, last in parts])

    def pages(self) -> Tensor:
        return Pages.of(self.cache, self.format)

    def fill(self) -> None:
        parts = [(s, 0, x.shape[0]) for s, x in enumerate(self.latents)]
        latent, key = self.gather(self.latents, parts), self.gather(self.keys, parts)
        ops.write_latent_cache(self.pages(), latent, key, self.batch(*parts))

    def write(self, *parts: Part) -> None:
        latent, key, batch = self.gather(self.latents, parts), self.gather(self.keys, parts), self.batch(*parts)
        values = self.cache, latent, key, batch.record, self.rank, self.rope, self.rank, self.rope
        run(latent_attention.write_latents[self.format], *values, reading=(latent, key))

    def attend(self, *parts: Part, room: int = 0, multiprocessors: int = 1) -> Tensor:
        """Run the GPU's kernel; room is how many bytes of scratch it has for runs of split sequences."""
        q, wide = self.gather(self.q, parts), self.rank + self.rope
        batch, out = self.batch(*parts), Tensor.full((q.shape[0], self.heads, self.rank), 7.0)
        near, scale = self.heads * wide, wide**-0.5
        scratch = scratch_with(room, sizes.GPU_LATENT_ROWS, self.rank, multiprocessors)
        as_heads = scratch.nbytes // 4, 1, self.heads, self.rank, 1, 0, scale
        shape = held_record(*as_heads, near, wide, near, wide, self.rope)
        values = out, q, q[:, :, self.rank :], self.cache, batch.record, scratch, shape
        kernel = latent_attention.latent_attention[self.format]
        run(kernel, *values, reading=(q, self.cache, shape), multiprocessors=multiprocessors)
        return out

    def wanted(self, *parts: Part) -> list[float]:
        q = self.gather(self.q, parts)
        out, scratch = Tensor.empty((q.shape[0], self.heads, self.rank)), latent_scratch(self.rank, self.rope)
        split, scale = (q[:, :, : self.rank], q[:, :, self.rank :]), (self.rank + self.rope) ** -0.5
        ops.latent_attention(*split, self.pages(), self.batch(*parts), scratch, out=out, scale=scale)
        return out.reshape(-1).tolist()


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=4)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=3), rank=st.integers(1, 90), rope=st.integers(1, 70))
def test_write_latents(format, lengths, rank, rope):
    wanted, found = (Latents(lengths, 1, rank, rope, format) for _ in range(2))
    wanted.fill()
    found.write(*[(s, 0, length) for s, length in enumerate(lengths)])
    assert bytes_of(found.cache) == bytes_of(wanted.cache)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=4)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=3), heads=st.integers(1, 25),
    rank=st.one_of(st.just(512), st.integers(1, 150)), rope=st.integers(1, 70), data=st.data(),
)  # fmt: skip
def test_beside_the_cpu(format, lengths, heads, rank, rope, data):
    case = Latents(lengths, heads, rank, rope, format)
    case.fill()
    parts = [(s, max(0, length - data.draw(st.integers(1, 3))), length) for s, length in enumerate(lengths)]
    assert relative_error(case.attend(*parts), case.wanted(*parts)) < ERRORS[format]


@pytest.mark.parametrize("format", FORMATS)
def test_cut_and_split_bits_are_the_same(format):
    length = 273
    case = Latents([length, 40], 5, 96, 16, format)
    case.fill()
    whole = case.attend((0, length - 20, length), multiprocessors=2)
    assert relative_error(whole, case.wanted((0, length - 20, length))) < ERRORS[format]
    first = 0
    for last in (1, 7, 20):
        part = (0, length - 20 + first, length - 20 + last)
        found = case.attend(part, (1, 39, 40), room=100_000, multiprocessors=2)
        assert bytes_of(found[: last - first].clone()) == bytes_of(whole[first:last].clone())
        first = last


def test_glm():
    case = Latents([300], 20, 512, 64, "bfloat16")
    case.fill()
    assert relative_error(case.attend((0, 299, 300), room=1 << 20), case.wanted((0, 299, 300))) < 1e-5
