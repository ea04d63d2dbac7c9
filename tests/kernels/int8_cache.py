"""A cache of int8 for tests: sequences in a shuffled pool of blocks that is full of garbage."""

import math
import random
from itertools import accumulate

from hypothesis import strategies as st

from pio import ops
from pio.cache.batch import Batch
from pio.device import Device
from pio.tensor import Tensor
from pio.testing.reference import quantized_cache as reference

BLOCK = ops.attention.BLOCK_SIZE
# what may lie where nothing was written, as float16, float32 and bytes: zeros, NaN, infinities, huge, negative scales
GARBAGE = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x80\x7f", b"\0\x7c\0\x7c", b"\xff\x7b\xff\x7b", b"\0\xfc\0\xfc")
GARBAGE += (b"\x7f\x7f\x7f\x7f", b"\x80\x80\x80\x80", b"\0\0\xc0\xff")


class Cache:
    """Written and read through a batch."""

    def __init__(self, lengths, kv_heads, dim, garbage=GARBAGE[1]):
        self.blocks = [-(-n // BLOCK) for n in lengths]
        total = sum(self.blocks)
        order = sorted(range(total), key=lambda b: (b * 7 + 3) % max(1, total))
        self.tables = [order[a - n : a] for n, a in zip(self.blocks, accumulate(self.blocks), strict=True)]
        kind, *shapes = ops.attention.cache_layout("int8", total, kv_heads, dim)
        pools = (Tensor.from_buffer(bytearray(garbage * (math.prod(shape) // 4)), kind, shape) for shape in shapes)
        self.keys, self.values = (ops.Pages.of(pool, "int8") for pool in pools)
        self.dim = dim

    def attend(self, slices, q, k, v, threads=1, **options):
        """slices: for each sequence (index, past, new); q, k, v hold the new tokens of all of them."""
        batch = Batch(k.shape[0], len(slices), max(self.blocks), 1)
        for index, past, new in slices:
            batch.add([0] * new, past, self.tables[index], 0)
        scratch = ops.attention_scratch(self.dim, Device("cpu", threads))
        ops.write_cache(self.keys, self.values, k, v, batch, scratch)
        out = Tensor.full(q.shape, math.nan)
        return ops.paged_attention(q, self.keys, self.values, batch, scratch, out=out, **options)

    def last(self, q, k, v, threads=1, **options):
        """Write one whole sequence, and attend for its last tokens."""
        past = k.shape[0] - q.shape[0]
        if past:
            self.attend([(0, 0, past)], Tensor.zeros((past, *q.shape[1:])), pick(k, 0, past), pick(v, 0, past))
        return self.attend(
            [(0, past, q.shape[0])], q, pick(k, past, k.shape[0]), pick(v, past, k.shape[0]), threads, **options
        )

    def holds(self, length):
        """Keys and values of the first sequence as they are stored."""
        sides = []
        for stored, read in ((self.keys, reference.read_key), (self.values, reference.read_value)):
            raw, kv_heads, size = bytes(stored.memoryview().cast("B")), stored.shape[1], stored.shape[2]
            sides.append([])
            for j in range(length):
                page = self.tables[0][j // BLOCK] * kv_heads
                blocks = [raw[(page + h) * size : (page + h + 1) * size] for h in range(kv_heads)]
                sides[-1].append([read(block, j % BLOCK, self.dim) for block in blocks])
        return sides


def pick(x, first, last):
    return x[first:last].contiguous()


@st.composite
def whole_numbers(draw, tokens, count, dim):
    """Queries that eight bits hold exactly: each group of 32 has a number of 127, or is zero."""
    source = random.Random(draw(st.integers(0, 2**32 - 1)))
    step = draw(st.sampled_from((0.004, 0.05, 1.0)))
    rows = []
    for _ in range(tokens * count):
        row = [float(source.randint(-127, 127)) for _ in range(dim)]
        for at in range(0, dim, 32):
            row[source.randrange(at, min(dim, at + 32))] = source.choice((-127.0, 127.0))
            if source.random() < 0.1:
                row[at : at + 32] = [0.0] * len(row[at : at + 32])
        rows.append([x * step for x in row])
    return Tensor.from_list(rows).reshape(tokens, count, dim)
