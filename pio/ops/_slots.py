"""Which states of a recurrent layer the sequences of a batch have, and tensors of heads with gaps between them."""

from __future__ import annotations

from typing import Protocol

from pio.dtypes import float32
from pio.errors import TensorError
from pio.ops._check import check_tensor
from pio.tensor import Tensor


class Slots(Protocol):
    """Which tokens of a flat batch belong to which sequence, and where its state is (``pio.cache.Batch``)."""

    slots: Tensor  # int32 (S,), pairwise different
    starts: Tensor  # int32 (S + 1,)
    past: Tensor  # int32 (S,); where it is 0, the state is zero whatever the slot holds
    num_sequences: int


def head_strides(op: str, name: str, x: Tensor, shape: tuple[int, ...] | None = None) -> tuple[int, int]:
    """Return how far the tokens and the heads of float32 x (tokens, heads, dim) lie apart, in elements.

    Each head is contiguous; there may be gaps between heads and between tokens. x may also be (rows, dim), which is
    one head a token.

    Raises:
        TensorError: Another dtype, shape or order of elements.
    """
    check_tensor(op, name, x)
    if x.dtype is not float32:
        raise TensorError(f'{op}: {name} is {x.dtype}, expected float32; convert it with .astype("float32")')
    if len(x.shape) not in (2, 3) or (shape is not None and x.shape != shape):
        raise TensorError(f"{op}: {name} has shape {x.shape}, expected {shape or '(tokens, heads, dim)'}")
    if x.shape[-1] != 1 and x.strides[-1] != 1:
        raise TensorError(
            f"{op}: {name} has strides {x.strides}, expected contiguous heads of {x.shape[-1]}; "
            "make it .contiguous() first"
        )
    return x.strides[0], x.strides[1] if len(x.shape) == 3 else x.shape[-1]
