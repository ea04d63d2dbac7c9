"""A cache of latents for tests: sequences in a shuffled pool of blocks that is full of garbage."""

import math
from itertools import accumulate

from hypothesis import strategies as st
from int8_cache import GARBAGE

from pio import ops
from pio.cache.batch import Batch
from pio.device import Device
from pio.ops.attention import BLOCK_SIZE as BLOCK
from pio.ops.latent_attention import latent_layout
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.strategies import tensors


class Paged:
    """Written and read through a batch."""

    def __init__(self, lengths, rank, rope, kind, garbage=GARBAGE[1]):
        self.blocks = [-(-n // BLOCK) for n in lengths]
        total = sum(self.blocks)
        order = sorted(range(total), key=lambda b: (b * 7 + 3) % max(1, total))
        self.tables = [order[a - n : a] for n, a in zip(self.blocks, accumulate(self.blocks), strict=True)]
        stored, shape = latent_layout(kind, total, rank, rope)
        size = math.prod(shape) * stored.itemsize
        self.cache = ops.Pages.of(
            Tensor.from_buffer(bytearray((garbage * (size // 4 + 1))[:size]), stored, shape), kind
        )
        self.rank, self.rope = rank, rope

    def write(self, slices, latent, key, threads=1):
        """slices: for each sequence (index, past, new); the tensors hold the new tokens of all of them."""
        batch = Batch(latent.shape[0], len(slices), max(self.blocks), 1)
        for index, past, new in slices:
            batch.add([0] * new, past, self.tables[index], 0)
        ops.write_latent_cache(self.cache, latent.to(Device("cpu", threads)), key, batch)
        return batch

    def attend(self, slices, q, q_rope, latent, key, threads=1, scale=0.3):
        batch = self.write(slices, latent, key, threads)
        out, scratch = Tensor.full(q.shape, math.nan), ops.latent_scratch(self.rank, self.rope, Device("cpu", threads))
        return ops.latent_attention(q, q_rope, self.cache, batch, scratch, out=out, scale=scale)

    def last(self, q, q_rope, latent, key, threads=1, scale=0.3):
        """Write one whole sequence, and attend for its last tokens."""
        tokens, past = q.shape[0], latent.shape[0] - q.shape[0]
        if past:
            self.write([(0, 0, past)], latent[:past], key[:past])
        return self.attend([(0, past, tokens)], q, q_rope, latent[past:], key[past:], threads, scale)


def assert_bits_depend_on_the_sequence_alone(data, shape, kind, longest, threads):
    """Drawn sequences, each in one piece and alone, then cut in two and together in a pool of drawn garbage."""
    heads, rank, rope = shape
    lengths = data.draw(st.lists(st.integers(1, longest), min_size=2, max_size=3, unique=True))
    drawn = [
        [data.draw(tensors(s)) for s in ((n, heads, rank), (n, heads, rope), (n, rank), (n, rope))] for n in lengths
    ]
    whole = [Paged([n], rank, rope, kind).last(*given) for n, given in zip(lengths, drawn, strict=True)]
    together = Paged(lengths, rank, rope, kind, data.draw(st.sampled_from(GARBAGE)))
    cuts = [data.draw(st.integers(0, n - 1)) for n in lengths]
    for bounds in ([(0, cut) for cut in cuts], list(zip(cuts, lengths, strict=True))):
        used = [i for i, (a, b) in enumerate(bounds) if b > a]
        if not used:
            continue
        joined = [
            Tensor.from_list([x for i in used for x in drawn[i][which][slice(*bounds[i])].tolist()])
            for which in range(4)
        ]
        found = together.attend([(i, bounds[i][0], bounds[i][1] - bounds[i][0]) for i in used], *joined, threads)
        at = 0
        for i in used:
            a, b = bounds[i]
            assert bits(found[at : at + b - a]) == bits(whole[i][a:b])
            at += b - a
