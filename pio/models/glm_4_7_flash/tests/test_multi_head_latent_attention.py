"""The attention block beside plain formulas: keys and values of every head made one by one, in float64."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.cache.batch import Batch
from pio.cache.latent import PagedLatentCache
from pio.dtypes import float32
from pio.layers.quantization import Records
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.models.glm_4_7_flash.latent_attention import LatentActivations, LatentSizes, MultiHeadLatentAttention
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.random_checkpoint import RandomTensors
from pio.testing.reference import linear as reference
from pio.testing.reference.latent_attention import expanded_attention
from pio.testing.reference.norm import rms_norm
from pio.testing.reference.rope import rope, rope_table

HIDDEN, TOKENS, SCALE, EPS = 23, 9, 0.21, 1e-3


def numbers(rows: int, columns: int, seed: int) -> Tensor:
    source = random.Random(seed)
    return Tensor.from_list([[source.gauss(0.0, 1.0) for _ in range(columns)] for _ in range(rows)])


class Block:
    """One layer of attention with random weights, what it works in, and its cache."""

    def __init__(self, sizes: LatentSizes, *, interleaved: bool, bias: bool, seed: int) -> None:
        self.weights = RandomTensors(float32, seed)
        self.sizes, self.interleaved, self.bias = sizes, interleaved, bias
        self.layer = MultiHeadLatentAttention(
            Source(self.weights, Records(TOKENS), threads=2),
            0,
            sizes,
            LatentActivations(TOKENS, sizes, 2),
            hidden=HIDDEN,
            eps=EPS,
            scale=SCALE,
            interleaved=interleaved,
            bias=bias,
        )
        self.frequencies = [0.7 / (i + 1) for i in range(sizes.rope // 2)]

    def run(self, x: Tensor, cuts: list[int]) -> Tensor:
        """Attend in pieces; return what is added to a residual stream of zeros."""
        s, out = self.sizes, Tensor.zeros(x.shape)
        cache = PagedLatentCache(1, TOKENS, s.rank, s.rope, float32)
        space = Workspace(TOKENS, HIDDEN, 0, 0, 0, s.rope, 1, 1, 2)
        edges = [0, *cuts, TOKENS]
        for first, last in pairwise(edges):
            batch, a = Batch(TOKENS, 1, 1, 1), space.activations(last - first)
            batch.add([0] * (last - first), first, [0], 0)
            ops.rope_table(
                batch.rotary_positions[0, : last - first],
                Tensor.from_list(self.frequencies),
                out_cos=a.cos,
                out_sin=a.sin,
            )
            self.layer(x[first:last], out[first:last], a, batch, cache)
        return out

    def expected(self, x: list[list[float]]) -> list[list[float]]:
        """The same by formulas that know nothing of latents in a cache."""
        s, stored = self.sizes, {name: tensor.tolist() for name, tensor in self.weights.tensors.items()}

        def project(name: str, rows: list[list[float]]) -> list[list[float]]:
            return reference.linear(rows, stored[f"{name}.weight"], stored.get(f"{name}.bias"))

        if s.query_rank is None:
            asked = project("q_proj", x)
        else:
            asked = project("q_b_proj", rms_norm(project("q_a_proj", x), stored["q_a_layernorm.weight"], EPS))
        width = s.key + s.rope
        heads = [[row[h * width : (h + 1) * width] for h in range(s.heads)] for row in asked]
        made = project("kv_a_proj_with_mqa", x)
        table = rope_table(range(len(x)), Tensor.from_list(self.frequencies).tolist())
        turned = rope([[head[s.key :] for head in row] for row in heads], *table, self.interleaved)
        keys = rope([[row[s.rank :]] for row in made], *table, self.interleaved)
        matrix, each = stored["kv_b_proj.weight"], s.key + s.value
        values = expanded_attention(
            [[head[: s.key] for head in row] for row in heads],
            turned,
            rms_norm([row[: s.rank] for row in made], stored["kv_a_layernorm.weight"], EPS),
            [row[0] for row in keys],
            [matrix[h * each : (h + 1) * each] for h in range(s.heads)],
            scale=SCALE,
        )
        return project("o_proj", [[value for head in row for value in head] for row in values])


@given(
    widths=st.lists(st.integers(1, 37), min_size=5, max_size=5, unique=True),
    query_latent=st.booleans(),
    half=st.integers(1, 9),
    options=st.fixed_dictionaries({"interleaved": st.booleans(), "bias": st.booleans(), "seed": st.integers(0, 99)}),
    cut=st.integers(1, TOKENS - 1),
)
def test_absorbed_is_expanded(
    widths: list[int], query_latent: bool, half: int, options: dict[str, Any], cut: int
) -> None:
    heads, query_rank, rank, key, value = widths
    sizes = LatentSizes(1 + heads % 6, query_rank if query_latent else None, rank, key, 2 * half, value)
    block, x = Block(sizes, **options), numbers(TOKENS, HIDDEN, options["seed"])
    found = block.run(x, [cut])
    expected = block.expected(x.tolist())
    largest = max(abs(value) for row in expected for value in row)
    assert_close(found, expected, absolute=2e-5 * max(1.0, largest))
    assert bits(found) == bits(block.run(x, [])) == bits(block.run(x, list(range(1, TOKENS))))


@pytest.mark.parametrize("interleaved", [True, False])
def test_equal_values_add_up_to_themselves(interleaved: bool) -> None:
    """Tokens that are all the same have the same values, and shares that sum to 1 wherever they are."""
    block = Block(LatentSizes(3, None, 10, 7, 6, 5), interleaved=interleaved, bias=True, seed=4)
    row = numbers(1, HIDDEN, 3).tolist()[0]
    found = block.run(Tensor.from_list([row] * TOKENS), []).tolist()
    assert all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) for r in found for a, b in zip(r, found[0], strict=True))
