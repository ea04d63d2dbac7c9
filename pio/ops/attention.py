"""Attention on tensors: over the paged caches of a batch, and over plain keys and values."""

from __future__ import annotations

import math
from typing import Protocol

from pio.dtypes import int32
from pio.errors import TensorError
from pio.kernels import attention as kernels
from pio.ops._check import all_threads, check, check_float, split
from pio.ops._overlap import check_apart
from pio.ops._tensors import check_writable
from pio.tensor import Tensor

BLOCK_SIZE = kernels.BLOCK


class Slices(Protocol):
    """Which tokens of a flat batch belong to which sequence, and where their caches are (``pio.cache.Batch``)."""

    block_tables: Tensor  # int32 (S, blocks)
    starts: Tensor  # int32 (S + 1,)
    past: Tensor  # int32 (S,)
    num_sequences: int


def value_width(head_dim: int) -> int:
    """Return the width at which a cache keeps values of that width: whole vectors."""
    return -(-head_dim // kernels.LANES) * kernels.LANES


def attention_scratch_shape(head_dim: int, threads: int | None = None) -> tuple[int, int]:
    """Return the shape of ``attention_scratch``, for a model that takes it from memory of its own."""
    return threads or all_threads(), kernels.scratch_floats(head_dim, value_width(head_dim))


def attention_scratch(head_dim: int, threads: int | None = None) -> Tensor:
    """Return the scratch that ``paged_attention`` needs, so that a model can make it once."""
    return Tensor.empty(attention_scratch_shape(head_dim, threads))


def write_cache(keys: Tensor, values: Tensor, k: Tensor, v: Tensor, batch: Slices, scratch: Tensor) -> None:
    """Store a batch's keys and values in the blocks of its sequences, rounded to the cache's type.

    Args:
        keys: (blocks, kv_heads, head_dim, BLOCK_SIZE), float32, float16 or bfloat16.
        values: (blocks, kv_heads, BLOCK_SIZE, value_width(head_dim)) of the same type.
        k: float32 (T, kv_heads, head_dim).
        v: float32 (T, kv_heads, head_dim).
        batch: Where each token belongs.
        scratch: From ``attention_scratch``.
    """
    check("write_cache", "scratch", scratch, (None, None))
    check("write_cache", "k", k, (None, None, None))
    _, kv_heads, head_dim = k.shape
    width = value_width(head_dim)
    check("write_cache", "v", v, k.shape)
    check_float("write_cache", "keys", keys, (None, kv_heads, head_dim, BLOCK_SIZE))
    check("write_cache", "values", values, (keys.shape[0], kv_heads, BLOCK_SIZE, width), keys.dtype)
    check_writable("write_cache", "keys", keys)
    check_writable("write_cache", "values", values)
    row = kv_heads * head_dim
    parts, floats = scratch.shape
    kernels.write_cache[keys.dtype.name](
        keys.address,
        values.address,
        k.address,
        v.address,
        batch.block_tables.address,
        batch.starts.address,
        batch.past.address,
        scratch.address,
        4 * floats,
        batch.num_sequences,
        row,
        row,
        batch.block_tables.shape[1],
        kv_heads,
        head_dim,
        width,
        head_dim,
        min(parts, split(2 * k.size, parts)),
    )


def paged_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: Slices,
    scratch: Tensor,
    *,
    out: Tensor,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
) -> Tensor:
    """Attend for every token of a batch over its sequence's cache (tiled online softmax, linear memory).

    Args:
        q: float32 (T, heads, head_dim); heads is a multiple of the cache's.
        keys: (blocks, kv_heads, head_dim, BLOCK_SIZE) of float32, float16 or bfloat16.
        values: (blocks, kv_heads, BLOCK_SIZE, value_width(head_dim)) of the same type.
        batch: Where each token belongs; its keys and values are in the cache already.
        scratch: From ``attention_scratch``; its first axis says over how many threads to split.
        out: float32 (T, heads, head_dim).
        scale: Factor of the scores; 1 / sqrt(head_dim) by default.
        causal: Whether a token sees only positions up to its own.
        window: A token sees this many positions up to its own, all by default.

    Returns:
        ``out``. A token's bits do not depend on the rest of the batch or on threads.
    """
    check("attention", "q", q, (None, None, None))
    check("attention", "scratch", scratch, (None, None))
    _, heads, head_dim = q.shape
    check_float("attention", "keys", keys, (None, None, head_dim, BLOCK_SIZE))
    kv_heads = keys.shape[1]
    width = value_width(head_dim)
    check("attention", "out", out, q.shape)
    check_writable("attention", "out", out)
    check_apart("attention", "out", out, q=q, keys=keys, values=values)
    check("attention", "values", values, (keys.shape[0], kv_heads, BLOCK_SIZE, width), keys.dtype)
    if heads % kv_heads:
        raise TensorError(f"attention: {heads} query heads do not divide among {kv_heads} key and value heads")
    parts, floats = scratch.shape
    kernels.attention[keys.dtype.name](
        out.address,
        q.address,
        keys.address,
        values.address,
        batch.block_tables.address,
        batch.starts.address,
        batch.past.address,
        scratch.address,
        4 * floats,
        batch.num_sequences,
        heads * head_dim,
        batch.block_tables.shape[1],
        kv_heads,
        heads // kv_heads,
        head_dim,
        width,
        head_dim,
        int(causal),
        window or 0,
        1.0 / math.sqrt(head_dim) if scale is None else scale,
        parts,
    )
    return out


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    threads: int | None = None,
) -> Tensor:
    """Attend over keys and values of one sequence: ``softmax(scale * q k^T) v``, grouped or multi-query.

    Args:
        q: float32 (tokens, heads, head_dim), the last tokens of the sequence.
        k: float32 (length, kv_heads, head_dim), length >= tokens.
        v: float32 (length, kv_heads, head_dim).
        causal: Whether token i sees only positions up to its own, length - tokens + i.
        window: A token sees this many positions up to its own, all by default.
        scale: Factor of the scores; 1 / sqrt(head_dim) by default.
        threads: Over how many threads to split; all by default.

    Returns:
        float32 (tokens, heads, head_dim). Memory is linear in length.

    Raises:
        TensorError: Shapes or dtypes do not fit.
    """
    check("scaled_dot_product_attention", "q", q, (None, None, None))
    tokens, heads, head_dim = q.shape
    check("scaled_dot_product_attention", "k", k, (None, None, head_dim))
    check("scaled_dot_product_attention", "v", v, k.shape)
    length, kv_heads, _ = k.shape
    if 0 in (heads, kv_heads, head_dim):
        raise TensorError(f"scaled_dot_product_attention: q {q.shape} or k {k.shape} has no heads, or heads of width 0")
    if tokens > length:
        raise TensorError(f"scaled_dot_product_attention: {tokens} queries but only {length} keys")
    if window is not None and (window < 1 or not causal):
        raise TensorError(f"scaled_dot_product_attention: window {window} needs causal attention and at least 1")
    blocks = -(-length // BLOCK_SIZE)
    keys = Tensor.zeros((blocks, kv_heads, head_dim, BLOCK_SIZE))
    values = Tensor.zeros((blocks, kv_heads, BLOCK_SIZE, value_width(head_dim)))
    scratch = attention_scratch(head_dim, threads)
    write_cache(keys, values, k, v, _OneSequence(blocks, length, 0), scratch)
    out = Tensor.empty(q.shape)
    sequence = _OneSequence(blocks, tokens, length - tokens)
    return paged_attention(q, keys, values, sequence, scratch, out=out, scale=scale, causal=causal, window=window)


class _OneSequence:
    def __init__(self, blocks: int, tokens: int, past: int) -> None:
        self.block_tables = Tensor.from_list([list(range(blocks))], int32)
        self.starts = Tensor.from_list([0, tokens], int32)
        self.past = Tensor.from_list([past], int32)
        self.num_sequences = 1
