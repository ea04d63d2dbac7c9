"""Attention on tensors: over the paged caches of a batch, and over plain keys and values."""

from __future__ import annotations

import math

from pio.device import Device, on_device
from pio.dtypes import DType
from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check, check_gpu_limit, split
from pio.ops._overlap import check_apart, check_same_device
from pio.ops._record import record
from pio.ops._tensors import check_writable
from pio.ops.pages import STORED, check_pages, stored_type
from pio.ops.slices import Slices
from pio.tensor import Tensor

kernels, full = launcher.module("attention"), launcher.module("_quantized_full_attention")
BLOCK_SIZE = sizes.BLOCK
COPYING, QUANTIZING = 2, 64  # work on a number of a key: to copy it, or to quantize it and scatter it over its block
WORK = dict.fromkeys(STORED, COPYING) | {"int8": QUANTIZING}
Shape = tuple[int, ...]


def value_width(head_dim: int) -> int:
    """Return the width at which a cache keeps values of that width: whole vectors."""
    return -(-head_dim // sizes.LANES) * sizes.LANES


def cache_layout(format: DType | str, blocks: int, kv_heads: int, head_dim: int) -> tuple[DType, Shape, Shape]:
    """Return how a cache of that format is kept: the elements' type, and the shapes of keys and of values.

    Floats are keys (blocks, kv_heads, head_dim, BLOCK_SIZE), transposed within a block, and values (blocks, kv_heads,
    BLOCK_SIZE, value_width(head_dim)). int8 has scales beside its numbers, so a block of a head is plain bytes.

    Raises:
        TensorError: There is no such format.
    """
    stored, width = stored_type("keys and values", format), value_width(head_dim)
    if str(format) == "int8":
        keys, values = sizes.int8_key_bytes(head_dim), sizes.int8_value_bytes(width)
        return stored, (blocks, kv_heads, keys), (blocks, kv_heads, values)
    return stored, (blocks, kv_heads, head_dim, BLOCK_SIZE), (blocks, kv_heads, BLOCK_SIZE, width)


def attention_scratch_shape(head_dim: int, device: Device | None = None) -> tuple[int, int]:
    """Return the shape of ``attention_scratch``, for a model that takes it from memory of its own.

    It is the same for any length of sequences. Of a GPU's ``begin_scratch`` must make the beginning zero.
    """
    stream = on_device(device).stream
    if stream is not None:
        return gpu_scratch_shape(sizes.GPU_ROWS, head_dim, stream.multiprocessors)
    width = value_width(head_dim)
    int8 = max(sizes.int8_attention_bytes(head_dim, width), sizes.int8_full_attention_bytes(head_dim, width))
    floats = max(sizes.attention_floats(head_dim, width), -(-int8 // 4))
    return sizes.PARTS * on_device(device).threads, -(-floats // 16) * 16


def attention_scratch(head_dim: int, device: Device | None = None) -> Tensor:
    """Return the scratch that ``paged_attention`` needs on a device, so that a model can make it once."""
    scratch = Tensor.empty(attention_scratch_shape(head_dim, device), device=device)
    begin_scratch(scratch)
    return scratch


def gpu_scratch_shape(rows: int, width: int, multiprocessors: int) -> tuple[int, int]:
    """Return the shape of scratch for attention on a GPU, see ``sizes.gpu_attention_floats``."""
    floats = -(-sizes.gpu_attention_floats(rows, width, multiprocessors) // sizes.PARTS)
    return sizes.PARTS, -(-floats // 16) * 16


def begin_scratch(scratch: Tensor) -> None:
    """Make the counters zero that a GPU keeps in the scratch of attention; every launch leaves them zero."""
    if scratch.device.stream is not None:
        scratch.reshape(scratch.size)[: sizes.GPU_COUNTERS].fill_(0.0)


def write_cache(keys: Tensor, values: Tensor, k: Tensor, v: Tensor, batch: Slices, scratch: Tensor) -> None:
    """Store a batch's keys and values in the blocks of its sequences, in the cache's format.

    Args:
        keys: As a cache's ``layer`` returns them: ``Pages`` of float32, float16, bfloat16 or int8, laid out as
            ``cache_layout`` says; of floats it may be any tensor.
        values: Likewise.
        k: float32 (T, kv_heads, head_dim).
        v: float32 (T, kv_heads, head_dim).
        batch: Where each token belongs.
        scratch: From ``attention_scratch``. Must not share memory with the others.

    Raises:
        TensorError: Shapes, dtypes or formats do not fit, or what is written is read-only.
    """
    check("write_cache", "scratch", scratch, (None, None))
    check("write_cache", "k", k, (None, None, None))
    _, kv_heads, head_dim = k.shape
    check("write_cache", "v", v, k.shape)
    format = _check_cache("write_cache", keys, values, head_dim)
    check("write_cache", "keys", keys, (None, kv_heads, *keys.shape[2:]), None)
    _check_scratch("write_cache", scratch, head_dim, k=k, v=v, keys=keys, values=values)
    check_same_device("write_cache", "keys", keys, "batch", batch.record)
    check_writable("write_cache", "keys", keys)
    check_writable("write_cache", "values", values)
    parts, floats = scratch.shape
    threads = min(split(WORK[format] * k.size, scratch.device), parts // sizes.PARTS)
    at = keys.address, values.address, k.address, v.address, batch.record.address, scratch.address
    kernels.on(k.device).write_cache[format](*at, 4 * floats, kv_heads, head_dim, threads)


def _check_cache(op: str, keys: Tensor, values: Tensor, head_dim: int) -> str:
    """Return the format of keys and values; raise a TensorError unless they are laid out as ``cache_layout`` says."""
    format, other = check_pages(op, "keys", keys), check_pages(op, "values", values)
    if other != format:
        raise TensorError(
            f"{op}: values is a cache of {other}, expected one of {format}, as keys is; give both as the cache's "
            "layer() returns them"
        )
    blocks, kv_heads = keys.shape[:2] if len(keys.shape) > 1 else (0, 0)
    _, key_shape, value_shape = cache_layout(format, blocks, kv_heads, head_dim)
    check(op, "keys", keys, key_shape, None)
    check(op, "values", values, value_shape, None)
    return format


def _check_scratch(op: str, scratch: Tensor, head_dim: int, **others: Tensor) -> None:
    """Raise a TensorError if scratch was made for narrower heads, is read-only or shares memory with others."""
    parts, floats = scratch.shape
    wanted = attention_scratch_shape(head_dim, scratch.device)[1]
    if parts < sizes.PARTS or floats < wanted:
        raise TensorError(
            f"{op}: scratch has shape {scratch.shape}, heads of width {head_dim} need "
            f"({sizes.PARTS} x threads, {wanted}); "
            f"make it with attention_scratch({head_dim})"
        )
    check_writable(op, "scratch", scratch)
    check_apart(op, "scratch", scratch, **others)


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
        keys: As a cache's ``layer`` returns them: ``Pages`` of float32, float16, bfloat16 or int8, laid out as
            ``cache_layout`` says; of floats it may be any tensor.
        values: Likewise.
        batch: Where each token belongs; its keys and values are in the cache already.
        scratch: From ``attention_scratch``; its first axis says over how many threads to split,
            with PARTS rows for each. Must not share memory with the others, nor be used by two streams at once.
        out: float32 (T, heads, head_dim).
        scale: Factor of the scores; 1 / sqrt(head_dim) by default.
        causal: Whether a token sees only positions up to its own.
        window: A token sees this many positions up to its own, all by default.

    Returns:
        ``out``. A token's bits do not depend on the rest of the batch or on threads.

    Raises:
        TensorError: Shapes, dtypes or formats do not fit, what is written is read-only or shares memory, or on a GPU
            head_dim is above 512.
    """
    check("attention", "q", q, (None, None, None))
    check("attention", "scratch", scratch, (None, None))
    _, heads, head_dim = q.shape
    check_gpu_limit("attention", "head_dim", head_dim, sizes.GPU_HEAD_DIM, q.device)
    format = _check_cache("attention", keys, values, head_dim)
    kv_heads = keys.shape[1]
    check("attention", "out", out, q.shape)
    check_writable("attention", "out", out)
    check_apart("attention", "out", out, q=q, keys=keys, values=values)
    if not kv_heads or heads % kv_heads:
        raise TensorError(f"attention: {heads} query heads do not divide among {kv_heads} key and value heads")
    if window is not None and window < 1:
        raise TensorError(f"attention: window is {window}, expected at least 1, or None for all")
    _check_scratch("attention", scratch, head_dim, out=out, q=q, keys=keys, values=values)
    check_same_device("attention", "out", out, "batch", batch.record)
    parts, floats = scratch.shape
    factor = 1.0 / math.sqrt(head_dim) if scale is None else float(scale)
    shape = record(4 * floats, kv_heads, heads // kv_heads, head_dim, int(causal), window or 0, factor, device=q.device)
    at = out.address, q.address, keys.address, values.address, batch.record.address, scratch.address, shape.address
    if format == "int8" and not causal and window is None:
        full.on(q.device).full_attention(*at, parts // sizes.PARTS)
    else:
        kernels.on(q.device).attention[format](*at, parts // sizes.PARTS)
    return out


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attend over keys and values of one sequence: ``softmax(scale * q k^T) v``, grouped or multi-query.

    Args:
        q: float32 (tokens, heads, head_dim), the last tokens of the sequence.
        k: float32 (length, kv_heads, head_dim), length >= tokens.
        v: float32 (length, kv_heads, head_dim).
        causal: Whether token i sees only positions up to its own, length - tokens + i.
        window: A token sees this many positions up to its own, all by default.
        scale: Factor of the scores; 1 / sqrt(head_dim) by default.

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
    keys = Tensor.zeros((blocks, kv_heads, head_dim, BLOCK_SIZE), device=q.device)
    values = Tensor.zeros((blocks, kv_heads, BLOCK_SIZE, value_width(head_dim)), device=q.device)
    scratch = attention_scratch(head_dim, q.device)
    sequence = Slices(1, blocks, device=q.device)
    sequence.append(length, 0, range(blocks))
    sequence.send()
    write_cache(keys, values, k, v, sequence, scratch)
    sequence.begin()
    sequence.append(tokens, length - tokens, range(blocks))
    sequence.send()
    out = Tensor.empty(q.shape, device=q.device)
    return paged_attention(q, keys, values, sequence, scratch, out=out, scale=scale, causal=causal, window=window)
