"""Attention over caches in every format, of keys and values and of latents, as cases."""

from __future__ import annotations

import math

from operation_case import Case, Sequences, numbers

from pio import ops
from pio.ops.attention import attention_scratch, cache_layout
from pio.ops.latent_attention import latent_layout, latent_scratch
from pio.ops.pages import STORED, Pages
from pio.tensor import Tensor

KV_HEADS, HEADS, DIM, BLOCKS = 2, 6, 21, 5
RANK, ROPE = 51, 21
PAST, TOKENS = (37, 5), (3, 2)
TABLES = [3, 0, 4], [2]
FIRST = Sequences(tuple((past, 0, table, 0, None, False) for past, table in zip(PAST, TABLES, strict=True)))
THEN = Sequences(tuple((n, past, table, 0, None, False) for n, past, table in zip(TOKENS, PAST, TABLES, strict=True)))


def empty(stored, shape, format):
    """Return memory of a cache that nobody has written yet."""
    fill = 255 if format == "int8" else math.nan
    return Pages.of(Tensor.full(shape, fill, stored), format)


def caches(format):
    stored, keys, values = cache_layout(format, BLOCKS, KV_HEADS, DIM)
    return empty(stored, keys, format), empty(stored, values, format)


def tokens(*shape, first=False, seed=1):
    return numbers(sum(PAST if first else TOKENS), *shape, seed=seed)


def attention(format):
    """Return two caches, what lies in them before, the batch that comes now, and what its tokens ask."""
    before = [tokens(KV_HEADS, DIM, first=True, seed=seed) for seed in (2, 3)]
    now = [tokens(KV_HEADS, DIM, seed=seed) for seed in (4, 5)]
    return *caches(format), *before, FIRST, *now, THEN, tokens(HEADS, DIM, seed=6)


def attend(window=None):
    """Return what fills the caches, adds a batch, and reads them."""

    def call(keys, values, k, v, first, more_k, more_v, then, q):
        scratch = attention_scratch(DIM, q.device)
        ops.write_cache(keys, values, k, v, first, scratch)
        ops.write_cache(keys, values, more_k, more_v, then, scratch)
        out = Tensor.full(q.shape, 7.0, device=q.device)
        return ops.paged_attention(q, keys, values, then, scratch, out=out, window=window)

    return call


def latents(format):
    stored, shape = latent_layout(format, BLOCKS, RANK, ROPE)
    before, now = tokens(RANK + ROPE, first=True, seed=2), tokens(RANK + ROPE, seed=3)
    return empty(stored, shape, format), before, FIRST, now, THEN, tokens(HEADS, RANK + ROPE, seed=4)


def attend_to_latents(cache, before, first, now, then, q):
    for x, batch in ((before, first), (now, then)):
        ops.write_latent_cache(cache, x[:, :RANK], x[:, RANK:], batch)
    out, scratch = Tensor.full((*q.shape[:2], RANK), 7.0, device=q.device), latent_scratch(RANK, ROPE, q.device)
    how = {"out": out, "scale": (RANK + ROPE) ** -0.5}
    return ops.latent_attention(q[:, :, :RANK], q[:, :, RANK:], cache, then, scratch, **how)


CASES = {
    "scaled_dot_product_attention": Case(
        ops.scaled_dot_product_attention,
        lambda: (numbers(2, 2, 4), numbers(3, 1, 4, seed=2), numbers(3, 1, 4, seed=3)),
        1e-5,
    ),
    "paged_attention in a window": Case(attend(window=6), lambda: attention("float16"), 1e-5),
}
for format in STORED:
    near = 2e-3 if format == "int8" else 1e-5
    CASES |= {
        f"paged_attention {format}": Case(attend(), lambda format=format: attention(format), near),
        f"latent_attention {format}": Case(attend_to_latents, lambda format=format: latents(format), near),
    }
