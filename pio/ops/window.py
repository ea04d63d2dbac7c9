"""What recurrent layers keep of the tokens of one step that may not stand, so that those that do can be committed."""

from __future__ import annotations

from dataclasses import dataclass

from pio.device import Device
from pio.errors import TensorError
from pio.kernels import sizes
from pio.ops.slices import Slices
from pio.tensor import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The window of one layer, W tokens.

    Attributes:
        inputs: What the convolution took, float32 (width - 1 + W, channels); its first width - 1 rows are zeros.
        learned: What each token made the state learn, float32 (heads, slices, W, columns of a slice).
        keys: What the state learned it by, float32 (key_heads, W, dim).
        decay: What the state kept before, float32 (heads, W).
        desks: Slices to walk on, float32 (parts, dim, columns of a slice), which all layers share.
    """

    inputs: Tensor
    learned: Tensor
    keys: Tensor
    decay: Tensor
    desks: Tensor


def window_shapes(tokens: int, states: tuple[Shape, Shape], key_heads: int) -> dict[str, Shape]:
    """Return the shapes of a layer's window, by name, all but the desks.

    Args:
        tokens: How many it is to keep.
        states: Shapes of a layer's states of one sequence: (width - 1, channels) and (heads, slices, dim, columns).
        key_heads: Of the layer.
    """
    (before, channels), (heads, slices, dim, columns) = states
    return {
        "inputs": (before + tokens, channels),
        "learned": (heads, slices, tokens, columns),
        "keys": (key_heads, tokens, dim),
        "decay": (heads, tokens),
    }


def desks_shape(states: tuple[Shape, Shape], device: Device) -> Shape:
    """Return the shape of the desks: a slice for each part of the work that a device's threads may do."""
    return (device.threads * sizes.SLICE_PARTS, *states[1][2:])


def check_kept(op: str, window: Window | None, tokens: int, batch: Slices) -> None:
    """Raise a TensorError where tokens of a batch must not move the states, and there is no room to keep them.

    Args:
        op: The operation.
        window: Where it may keep them.
        tokens: How many fit.
        batch: Whose tokens.
    """
    if window is None and batch.tentative:
        raise TensorError(
            f"{op}: the batch has tentative sequences, whose states must stay as they are; give window=, which a cache "
            "of states has that was made for tentative tokens"
        )
    if batch.tentative_tokens > tokens:
        raise TensorError(
            f"{op}: the batch has {batch.tentative_tokens} tentative tokens, the window keeps {tokens}; let fewer of "
            "a step be tentative, or make the cache for more"
        )
