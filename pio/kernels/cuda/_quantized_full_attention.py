"""Attention over int8 in which every query sees all of its sequence, as ``pio.kernels._quantized_full_attention``.

Here it is the walk of ``attention``, but that probabilities are quantized by four blocks at once, as on a CPU.
"""

from __future__ import annotations

from pio.kernels.cuda._float_attention import SHARED
from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda._pieces import SPAN, attend_batch
from pio.kernels.cuda._stretches import THREADS
from pio.kernels.sizes import GPU_BLOCKS

attend_int8 = attend_batch[SPAN]


@cuda_kernel(block=THREADS, blocks=GPU_BLOCKS, shared=SHARED)
def full_attention(out: int, q: int, keys: int, values: int, batch: int, scratch: int, shape: int) -> None:
    """Attend for a batch of sequences, of which every token sees every position.

    out[t, h] = softmax(scale * q[t, h] . keys[j], all j of the sequence) @ values[j]

    Shapes: as in ``attention.attention``, of int8; shape says that nothing is causal and that there is no window.
    """
    attend_int8(out, q, 0, keys, values, batch, scratch, shape)
