"""Latent attention over a paged cache, as ``pio.kernels.latent_attention``: all heads read the same numbers, once.

How a batch is dealt to blocks stands in ``_pieces``; a piece is up to ROWS queries of a sequence, heads of tokens.
"""

from __future__ import annotations

from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda import quantized_latent
from pio.kernels.cuda._float_latent import SHARED
from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function_per_dtype
from pio.kernels.cuda._pieces import LATENTS, attend_batch
from pio.kernels.cuda._slices import in_format, past_of, sequence_of, sequences_of, start_of, table_of
from pio.kernels.cuda._stretches import THREADS
from pio.kernels.cuda.ptx import WARP, block_index, get_f32, get_i32, grid_size, itemsize, single, store, thread_index
from pio.kernels.sizes import BLOCK, GPU_BLOCKS, KEY_STEP, LATENT_STEP

attend = PerDtype(lambda kind: attend_batch[LATENTS + kind])


@cuda_kernel_per_dtype(block=THREADS, blocks=GPU_BLOCKS, shared=SHARED)
def latent_attention(out: int, q_latent: int, q_rope: int, latents: int, batch: int, scratch: int, shape: int) -> None:
    """Attend for a batch of sequences over their paged latents.

    out[t, h] = softmax(scale * (q_latent[t, h] . latent[j] + q_rope[t, h] . key[j]), j <= position of t) @ latent[j]

    Shapes: q_latent float32 (T, heads, rank) and q_rope float32 (T, heads, rope_dim), with gaps as shape says; out
    float32 (T, heads, rank); latents (blocks, ...) as the cache's format keeps them; batch the record of ``_slices``,
    shape that of ``_latent_record``; scratch as in ``attention.attention``, with slots float32 (rows, rank + 2) where
    rows are up to 24. A row of a latent and its key has at most 1728 numbers. Sums in float32.
    """
    attend(out, q_latent, q_rope, latents, latents, batch, scratch, shape)


@device_function_per_dtype
def store_floats(
    latents: int, page: int, slot: int, latent: int, key: int, rank: int, rope_dim: int, lane: int
) -> None:
    """Put the latent and the shared key of a position into their block, rounded to the cache's type.

    Shapes: latent float32 (rank,); key float32 (rope_dim,); latents (blocks, BLOCK, width) of the kernel's type; slot <
    BLOCK.
    """
    values, i = (rank + LATENT_STEP - 1) // LATENT_STEP * LATENT_STEP, lane
    width = values + (rope_dim + KEY_STEP - 1) // KEY_STEP * KEY_STEP
    row = latents + itemsize * (page * BLOCK + slot) * width
    while i < width:
        x = single(0.0)
        if i < rank:
            x = get_f32(latent + 4 * i)
        elif values <= i < values + rope_dim:
            x = get_f32(key + 4 * (i - values))
        store(row + itemsize * i, x)
        i += WARP


store_position = in_format(store_floats, quantized_latent.store_position)


@cuda_kernel_per_dtype(block=256, blocks=4)
def write_latents(
    latents: int, latent: int, key: int, batch: int, ld_latent: int, ld_key: int, rank: int, rope_dim: int
) -> None:
    """Store the latents and shared keys of a batch in the blocks of its sequences; a warp takes a token.

    latents[table[p // BLOCK], p % BLOCK] = (latent[t], key[t])

    Shapes: latent float32 (T, rank), token stride ld_latent; key float32 (T, rope_dim), ld_key; latents, batch as in
    ``latent_attention``. Rounded or quantized to the cache's type.
    """
    lane, warps = thread_index() % WARP, 256 // WARP
    t, tokens = block_index() * warps + thread_index() // WARP, start_of(batch, sequences_of(batch))
    while t < tokens:
        s = sequence_of(batch, t)
        at = past_of(batch, s) + t - start_of(batch, s)
        page = get_i32(table_of(batch, s) + 4 * (at // BLOCK))
        at_latent, at_key = latent + 4 * t * ld_latent, key + 4 * t * ld_key
        store_position(latents, page, at % BLOCK, at_latent, at_key, rank, rope_dim, lane)
        t += grid_size() * warps
