"""States of recurrent layers take in the tokens of a window that stand, on tensors."""

from __future__ import annotations

from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check_tensor, split
from pio.ops._overlap import check_apart
from pio.ops._record import record
from pio.ops._tensors import check_writable, row_stride
from pio.tensor import Tensor

kernels = launcher.module("commit")


def commit_delta(
    state: Tensor, learned: Tensor, keys: Tensor, decay: Tensor, first: int, tokens: int, *, fresh: bool = False
) -> None:
    """Let the states of one sequence take in tokens that ``gated_delta`` kept, in all layers.

    Args:
        state: Its states, float32 (layers, heads, slices, dim, columns), overwritten; there may be gaps between layers,
            as between the slots of a cache.
        learned: As a ``Window`` has it, of all layers: float32 (layers, heads, slices, W, columns); gaps between
            layers.
        keys: float32 (layers, key_heads, W, dim), likewise.
        decay: float32 (layers, heads, W), likewise.
        first: Where in the window the sequence's tokens begin.
        tokens: How many of them stand.
        fresh: Whether nothing came before them, so that the states begin as zeros.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit, the window has fewer tokens, or the states lie in it.
    """
    op = "commit_delta"
    check_tensor(op, "state", state)
    check_tensor(op, "keys", keys)
    if len(state.shape) != 5 or len(keys.shape) != 4:
        raise TensorError(
            f"{op}: state has shape {state.shape} and keys {keys.shape}, expected (layers, heads, slices, dim, "
            "columns) and (layers, key_heads, tokens, dim)"
        )
    layers, heads, slices, dim, columns = state.shape
    key_heads, room = keys.shape[1:3]
    _check_room(op, first, tokens, room)
    if not key_heads or heads % key_heads:
        raise TensorError(f"{op}: {heads} value heads do not divide among {key_heads} key heads")
    apart = (
        row_stride(op, "state", state),
        row_stride(op, "learned", learned, (layers, heads, slices, room, columns)),
        row_stride(op, "keys", keys, (layers, key_heads, room, dim)),
        row_stride(op, "decay", decay, (layers, heads, room)),
    )
    check_writable(op, "state", state)
    check_apart(op, "state", state, learned=learned, keys=keys, decay=decay)
    if not tokens or not state.size:
        return
    shape = record(layers, heads, key_heads, slices, dim, room, *apart, device=state.device)
    at = state.address, learned.address, keys.address, decay.address
    parts = split(4 * state.size, state.device)
    kernels.on(state.device).commit_delta(*at, first, tokens, int(fresh), shape.address, parts)


def commit_inputs(state: Tensor, window: Tensor, first: int, tokens: int, *, fresh: bool = False) -> None:
    """Let what the convolutions of one sequence still need move on by tokens that ``causal_conv`` kept, in all layers.

    Args:
        state: Its last inputs, float32 (layers, width - 1, channels), overwritten; gaps between layers are allowed.
        window: As a ``Window`` has it, of all layers: float32 (layers, width - 1 + W, channels); gaps between layers.
        first: Where in the window the sequence's tokens begin.
        tokens: How many of them stand.
        fresh: Whether nothing came before them, so that zeros did.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit, the window has fewer tokens, or the states lie in it.
    """
    op = "commit_inputs"
    check_tensor(op, "state", state)
    check_tensor(op, "window", window)
    if len(state.shape) != 3 or len(window.shape) != 3:
        raise TensorError(
            f"{op}: state has shape {state.shape} and window {window.shape}, expected (layers, width - 1, channels) "
            "and (layers, width - 1 + tokens, channels)"
        )
    layers, before, channels = state.shape
    room = window.shape[1] - before
    _check_room(op, first, tokens, room)
    layer_window = row_stride(op, "window", window, (layers, before + room, channels))
    layer_state = row_stride(op, "state", state)
    check_writable(op, "state", state)
    check_apart(op, "state", state, window=window)
    if not tokens or not state.size:
        return
    at = state.address, window.address + 4 * (before + first) * channels
    sizes = layers, before, channels, layer_state, layer_window
    kernels.on(state.device).commit_inputs(*at, tokens, int(fresh), *sizes, split(state.size, state.device))


def _check_room(op: str, first: int, tokens: int, room: int) -> None:
    if not 0 <= first <= first + tokens <= room or tokens < 0:
        raise TensorError(f"{op}: tokens {first} to {first + tokens} of a window, expected from 0 to at most {room}")
