"""Recurrent layers and what commits their tokens, as cases."""

from __future__ import annotations

from operation_case import Case, Sequences, numbers

from pio import ops
from pio.kernels import sizes
from pio.ops.gated_delta import state_shape
from pio.ops.window import Window, window_shapes
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS

KEY_HEADS, HEADS, DIM, VALUE_DIM, SLOTS, ROOM = 2, 4, 40, 21, 5, 6
TOKENS, CHANNELS, WIDTH = 14, 37, 4
# Tokens, past, blocks, slot, source, whether tentative: cut in two, empty, fresh, and two that leave their states.
SEQUENCES = Sequences(
    (
        (4, 3, [0], 2, None, False),
        (0, 5, [0], 1, None, False),
        (2, 0, [0], 0, None, False),
        (3, 7, [0], 3, 2, False),
        (3, 6, [0], 4, None, True),
        (2, 0, [0], 1, None, True),
    )
)


def window():
    """Return a window of a layer, with zeros in it."""
    shape = state_shape(SLOTS, HEADS, DIM, VALUE_DIM)
    shapes = window_shapes(ROOM, ((WIDTH - 1, CHANNELS), shape[1:]), KEY_HEADS)
    made = {name: Tensor.zeros(shape) for name, shape in shapes.items()}
    return Window(desks=Tensor.zeros((sizes.SLICE_PARTS * 64, DIM, sizes.SLICE)), **made)


def gates(dtype):
    return numbers(TOKENS, 11), numbers(4, seed=5, dtype=dtype), numbers(4, seed=6, dtype=dtype)


def delta_gates(x, a_log, dt_bias):
    return ops.delta_gates(x[:, 1:5], x[:, 6:10], a_log, dt_bias)


def delta():
    """Return what the rule takes of a layer; what lies behind a head's columns in its last slice are zeros."""
    state = numbers(*state_shape(SLOTS, HEADS, DIM, VALUE_DIM), seed=4)
    behind = VALUE_DIM % sizes.SLICE
    empty = Tensor.zeros((SLOTS, HEADS, 1, DIM, sizes.SLICE - behind))
    state[:, :, -1:, :, behind:].copy_(empty)
    keys = [numbers(TOKENS, KEY_HEADS, DIM, seed=seed) for seed in (1, 2)]
    open_ = [ops.mul(x, x) for x in (numbers(TOKENS, HEADS, seed=7), numbers(TOKENS, HEADS, seed=8))]
    fractions = [ops.mul(x, Tensor.full(x.shape, 0.24)) for x in open_]
    return *keys, numbers(TOKENS, HEADS, VALUE_DIM, seed=3), *fractions, state, SEQUENCES, window()


def gated_delta(q, k, v, decay, beta, state, batch, kept):
    out = ops.gated_delta(q, k, v, decay, beta, state, batch, window=kept)
    return out, state, kept.learned, kept.keys, kept.decay


def gated_delta_of_gates(q, k, v, x, a_log, dt_bias, state, batch, kept):
    decay, beta = (Tensor.full((TOKENS, HEADS), 7.0).to(q.device) for _ in range(2))
    gates = x[:, 1 : 1 + HEADS], x[:, 6 : 6 + HEADS], a_log, dt_bias
    return ops.gated_delta(q, k, v, decay, beta, state, batch, gates=gates, window=kept), decay, beta, state


def gates_beside_delta(dtype):
    """Return what the rule takes where its gates are still to be made."""
    q, k, v, _, _, *rest = delta()
    return q, k, v, *gates(dtype), *rest


def convolution(dtype):
    states = numbers(SLOTS, WIDTH - 1, CHANNELS, seed=2)
    return numbers(TOKENS, CHANNELS + 3), numbers(WIDTH, CHANNELS, seed=3, dtype=dtype), states, SEQUENCES, window()


def causal_conv(x, weight, state, batch, kept):
    out = ops.causal_conv(x[:, 2 : 2 + CHANNELS], weight, state, batch, window=kept)
    return out, state, kept.inputs


def committed():
    """Return states of two layers and what a window has kept for them."""
    shape = 2, HEADS, 2, DIM, sizes.SLICE
    learned = numbers(2, HEADS, 2, ROOM, sizes.SLICE, seed=2)
    return numbers(*shape), learned, numbers(2, KEY_HEADS, ROOM, DIM, seed=3), numbers(2, HEADS, ROOM, seed=4)


def commit_delta(fresh):
    def call(state, learned, keys, decay):
        ops.commit_delta(state, learned, keys, decay, 1, 3, fresh=fresh)
        return state

    return call


def commit_inputs(fresh):
    def call(state, kept):
        ops.commit_inputs(state, kept, 1, 2, fresh=fresh)
        return state

    return call


def inputs():
    return numbers(2, WIDTH - 1, CHANNELS), numbers(2, WIDTH - 1 + ROOM, CHANNELS, seed=2)


CASES = {"gated_delta": Case(gated_delta, delta, 2e-6)}
for fresh in (False, True):
    CASES |= {
        f"commit_delta{' afresh' * fresh}": Case(commit_delta(fresh), committed),
        f"commit_inputs{' afresh' * fresh}": Case(commit_inputs(fresh), inputs),
    }
for dtype in FLOATS:
    CASES |= {
        f"delta_gates {dtype}": Case(delta_gates, lambda dtype=dtype: gates(dtype), 1e-6),
        f"gated_delta of gates {dtype}": Case(
            gated_delta_of_gates, lambda dtype=dtype: gates_beside_delta(dtype), 2e-6
        ),
        f"causal_conv {dtype}": Case(causal_conv, lambda dtype=dtype: convolution(dtype), 1e-6),
    }
