"""Attention over the paged latents of a batch: one vector a position, from which all heads' keys and values follow."""

from __future__ import annotations

from pio.device import Device, on_device
from pio.dtypes import DType
from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check, check_gpu_limit, check_tensor, split
from pio.ops._overlap import check_apart, check_same_device
from pio.ops._record import record
from pio.ops._tensors import check_writable, head_strides, row_stride
from pio.ops.attention import BLOCK_SIZE, begin_scratch, gpu_scratch_shape
from pio.ops.pages import check_pages, stored_type
from pio.ops.slices import Slices
from pio.tensor import Tensor

kernels = launcher.module("latent_attention")


def latent_layout(format: DType | str, blocks: int, rank: int, rope_dim: int) -> tuple[DType, tuple[int, ...]]:
    """Return how a layer's cache of that format is kept: the elements' type, and its shape.

    Floats are (blocks, BLOCK_SIZE, row): a row for each position, of the latent, with zeros up to a multiple of 32, and
    the key that heads share, with zeros up to a multiple of 8. int8 has scales beside its numbers, so a block is plain
    bytes: 17 for each 16 numbers, both parts rounded up to a multiple of 64.

    Raises:
        TensorError: There is no such format.
    """
    stored = stored_type("latents", format)
    if str(format) == "int8":
        return stored, (blocks, sizes.int8_latent_block(rank, rope_dim))
    return stored, (blocks, BLOCK_SIZE, sizes.latent_row(rank, rope_dim))


def latent_scratch_shape(rank: int, rope_dim: int, device: Device | None = None) -> tuple[int, int]:
    """Return the shape of ``latent_scratch``, for a model that takes it from memory of its own.

    It is the same for any length of sequences. Of a GPU's ``attention.begin_scratch`` must make the beginning zero.
    """
    stream = on_device(device).stream
    if stream is not None:
        return gpu_scratch_shape(rank, stream.multiprocessors, latent=True)
    floats = max(sizes.latent_floats(rank, rope_dim), -(-sizes.int8_latent_bytes(rank, rope_dim) // 4))
    return sizes.PARTS * on_device(device).threads, -(-floats // 16) * 16


def latent_scratch(rank: int, rope_dim: int, device: Device | None = None) -> Tensor:
    """Return the scratch that ``latent_attention`` needs on a device, so that a model can make it once."""
    scratch = Tensor.empty(latent_scratch_shape(rank, rope_dim, device), device=device)
    begin_scratch(scratch)
    return scratch


def write_latent_cache(cache: Tensor, latent: Tensor, key: Tensor, batch: Slices) -> None:
    """Store a batch's latents and shared keys in the blocks of its sequences, in the cache's format.

    Args:
        cache: As a cache's ``layer`` returns it: ``Pages`` of float32, float16, bfloat16 or int8, laid out as
            ``latent_layout`` says; of floats it may be any tensor.
        latent: float32 (T, rank), after its norm; there may be gaps between tokens, as in a slice of wider rows.
        key: float32 (T, rope_dim), rotated; likewise.
        batch: Where each token belongs.

    Raises:
        TensorError: Shapes, strides, dtypes or the format do not fit, or the cache is read-only.
    """
    op = "write_latent_cache"
    check_tensor(op, "latent", latent)
    check_tensor(op, "key", key)
    if latent.ndim != 2 or key.ndim != 2 or latent.shape[0] != key.shape[0]:
        raise TensorError(
            f"{op}: latent has shape {latent.shape} and key {key.shape}, expected (tokens, rank) and (tokens, "
            "rope_dim); drop the axis of heads, there is one key for all"
        )
    ld_latent, ld_key = row_stride(op, "latent", latent), row_stride(op, "key", key)
    rank, rope_dim = latent.shape[1], key.shape[1]
    format = _check_cache(op, cache, rank, rope_dim)
    check_writable(op, "cache", cache)
    check_apart(op, "cache", cache, latent=latent, key=key)
    check_same_device(op, "cache", cache, "batch", batch.record)
    at = cache.address, latent.address, key.address, batch.record.address
    parts = split(latent.size + key.size, latent.device)
    kernels.on(latent.device).write_latents[format](*at, ld_latent, ld_key, rank, rope_dim, parts)


def latent_attention(
    q_latent: Tensor, q_rope: Tensor, cache: Tensor, batch: Slices, scratch: Tensor, *, out: Tensor, scale: float
) -> Tensor:
    """Attend for every token of a batch over its sequence's latents (tiled online softmax, linear memory), causally.

    ``out[t, h] = softmax(scale * (q_latent[t, h] . latent[j] + q_rope[t, h] . key[j])) @ latent[j]`` over the positions
    j up to the token's own. With queries multiplied by the transposed matrix that makes keys from latents, and ``out``
    by the one that makes values (``absorbed_weights``), this is attention over those keys and values.

    Args:
        q_latent: float32 (T, heads, rank); there may be gaps between heads and tokens.
        q_rope: float32 (T, heads, rope_dim), rotated; likewise.
        cache: As a cache's ``layer`` returns it: ``Pages`` of float32, float16, bfloat16 or int8, laid out as
            ``latent_layout`` says; of floats it may be any tensor.
        batch: Where each token belongs; its latents and keys are in the cache already.
        scratch: From ``latent_scratch``; its first axis says over how many threads to split, with PARTS rows for each.
            Must not share memory with the others.
        out: float32 (T, heads, rank).
        scale: Factor of the scores: as a rule 1 / sqrt(width of a head's whole key).

    Returns:
        ``out``. A token's bits do not depend on the rest of the batch or on threads.

    Raises:
        TensorError: Shapes, strides, dtypes or the format do not fit, what is written is read-only or shares memory, or
            on a GPU a row of the cache is wider than 1728.
    """
    op = "latent_attention"
    ld_latent, head_latent = head_strides(op, "q_latent", q_latent)
    if q_latent.ndim != 3:
        raise TensorError(f"{op}: q_latent has shape {q_latent.shape}, expected (tokens, heads, rank)")
    tokens, heads, rank = q_latent.shape
    check_tensor(op, "q_rope", q_rope)
    rope_dim = q_rope.shape[-1] if q_rope.ndim else 0
    ld_rope, head_rope = head_strides(op, "q_rope", q_rope, (tokens, heads, rope_dim))
    if 0 in (heads, rank, rope_dim):
        raise TensorError(f"{op}: q_latent {q_latent.shape} or q_rope {q_rope.shape} has no heads, or heads of width 0")
    format = _check_cache(op, cache, rank, rope_dim)
    check_gpu_limit(
        op, "a latent with its key", sizes.latent_row(rank, rope_dim), sizes.GPU_LATENT_ROW, q_latent.device
    )
    check(op, "out", out, q_latent.shape)
    check_writable(op, "out", out)
    check_apart(op, "out", out, q_latent=q_latent, q_rope=q_rope, cache=cache)
    check(op, "scratch", scratch, (None, None))
    parts, floats = scratch.shape
    wanted = latent_scratch_shape(rank, rope_dim, scratch.device)[1]
    if parts < sizes.PARTS or floats < wanted:
        raise TensorError(
            f"{op}: scratch has shape {scratch.shape}, expected ({sizes.PARTS} x threads, {wanted}); "
            f"make it with latent_scratch({rank}, {rope_dim})"
        )
    check_writable(op, "scratch", scratch)
    check_same_device(op, "out", out, "batch", batch.record)
    check_apart(op, "scratch", scratch, out=out, q_latent=q_latent, q_rope=q_rope, cache=cache)
    strides = ld_latent, head_latent, ld_rope, head_rope
    as_heads = 4 * floats, 1, heads, rank, 1, 0, float(scale)  # one head of keys, causal, no window
    shape = record(*as_heads, *strides, rope_dim, device=q_latent.device)
    inputs = q_latent.address, q_rope.address, cache.address, batch.record.address
    at = out.address, *inputs, scratch.address, shape.address
    kernels.on(q_latent.device).latent_attention[format](*at, parts // sizes.PARTS)
    return out


def _check_cache(op: str, cache: Tensor, rank: int, rope_dim: int) -> str:
    """Return the cache's format; raise a TensorError unless it is one of such latents and keys."""
    format = check_pages(op, "cache", cache)
    _, wanted = latent_layout(format, cache.shape[0] if cache.shape else 0, rank, rope_dim)
    if cache.shape != wanted:
        sizes = ", ".join(map(str, ("blocks", *wanted[1:])))
        raise TensorError(
            f"{op}: cache has shape {cache.shape}, expected ({sizes}) for latents of {rank} and keys of {rope_dim}; "
            "make it with latent_layout or CacheFormat.latents"
        )
    if not cache.is_contiguous:
        raise TensorError(f"{op}: cache is a strided view; give the whole of a layer")
    return format
