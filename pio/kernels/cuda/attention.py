"""Attention over a paged cache, as ``pio.kernels.attention``: causal, grouped queries, sliding window.

How a batch is dealt to blocks, and why a query's bits do not depend on that, stands in ``_pieces``.
"""

from __future__ import annotations

from pio.kernels.cuda import quantized_cache
from pio.kernels.cuda._float_attention import SHARED
from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function_per_dtype
from pio.kernels.cuda._pieces import attend_batch
from pio.kernels.cuda._slices import in_format, past_of, sequence_of, sequences_of, start_of, table_of
from pio.kernels.cuda._stretches import THREADS
from pio.kernels.cuda.ptx import WARP, block_index, get_f32, get_i32, grid_size, itemsize, store, thread_index
from pio.kernels.sizes import BLOCK, GPU_BLOCKS


@cuda_kernel_per_dtype(block=THREADS, blocks=GPU_BLOCKS, shared=SHARED)
def attention(out: int, q: int, keys: int, values: int, batch: int, scratch: int, shape: int) -> None:
    """Attend for a batch of sequences over their paged caches.

    out[t, h] = softmax(scale * q[t, h] . keys[j], j <= position of t if causal, inside the window) @ values[j]

    Shapes: q, out float32 (T, kv_heads * group, head_dim); keys, values (blocks, kv_heads, ...) as the cache's format
    keeps them; batch the record of ``_slices``, shape that of ``_attention_record``; scratch PARTS times the bytes that
    shape says: counters, int32 (COUNTERS,), zero before and behind a launch; a slot for each block, float32
    (rows, head_dim + 2) where rows are up to sixteen; then such slots for runs of long sequences, as far as they fit.
    head_dim is at most 512. Sums in float32.
    """
    attend_batch(out, q, 0, keys, values, batch, scratch, shape)


@device_function_per_dtype
def store_floats(keys: int, values: int, head: int, slot: int, k: int, v: int, head_dim: int, lane: int) -> None:
    """Put the key and the value of a position and head into their block, rounded to the cache's type.

    Shapes: k, v float32 (head_dim,); keys (blocks, kv_heads, head_dim, BLOCK) and values (blocks, kv_heads, BLOCK,
    width) of the kernel's type; head counts blocks and heads.
    """
    width, i = (head_dim + 15) // 16 * 16, lane
    while i < head_dim:
        store(keys + itemsize * ((head * head_dim + i) * BLOCK + slot), get_f32(k + 4 * i))
        store(values + itemsize * ((head * BLOCK + slot) * width + i), get_f32(v + 4 * i))
        i += WARP


store_position = in_format(store_floats, quantized_cache.store_position)


@cuda_kernel_per_dtype(block=256, blocks=3)
def write_cache(
    keys: int, values: int, k: int, v: int, batch: int, scratch: int, stride: int, kv_heads: int, head_dim: int
) -> None:
    """Store the keys and values of a batch in the blocks of its sequences; a warp takes a token's head.

    keys[block, h, p % BLOCK] = k[t, h];  values[block, h, p % BLOCK] = v[t, h];  block = table[p // BLOCK]

    Shapes: k, v float32 (T, kv_heads, head_dim); keys, values, batch as in ``attention``; scratch is not used. Rounded
    to the cache's type.
    """
    lane, warps = thread_index() % WARP, 256 // WARP
    row, rows = block_index() * warps + thread_index() // WARP, start_of(batch, sequences_of(batch)) * kv_heads
    while row < rows:
        t = row // kv_heads
        s = sequence_of(batch, t)
        at = past_of(batch, s) + t - start_of(batch, s)
        head = get_i32(table_of(batch, s) + 4 * (at // BLOCK)) * kv_heads + row % kv_heads
        store_position(keys, values, head, at % BLOCK, k + 4 * row * head_dim, v + 4 * row * head_dim, head_dim, lane)
        row += grid_size() * warps
