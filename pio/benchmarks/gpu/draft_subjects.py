"""What recurrent layers do with drafted tokens, as subjects: a step leaves states alone, a commit takes tokens in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from pio import ops
from pio.benchmarks.gpu.check_shapes import Delta, Shapes
from pio.benchmarks.gpu.mixer_subjects import RECURRENCE, gate_inputs, turns
from pio.benchmarks.gpu.numbers import Numbers
from pio.benchmarks.gpu.subject import Subject, Work
from pio.device import Device
from pio.ops.gated_delta import state_shape
from pio.ops.slices import Slices
from pio.ops.window import Window, desks_shape, window_shapes

FIRST: Final = 2  # where in the window the tokens begin: behind another sequence's
STAND: Final = 3  # tokens that come as they were drafted


def drafts(shapes: Shapes) -> Iterator[Subject]:
    """Return a step of drafted tokens, and the commit of those that stand, in all layers at once."""
    d, drafted = shapes.delta, STAND + 2
    heads = f"heads {d.key_heads}/{d.heads}, {d.dim} x {d.value_dim}"
    yield Subject(f"gated delta, {drafted} drafted tokens, {heads}", partial(_delta, d, drafted), RECURRENCE)
    channels = _channels(d)
    yield Subject(f"convolution, {drafted} drafted tokens x {channels}", partial(_conv, d, drafted), RECURRENCE)
    for fresh in (False, True):
        how = f"{STAND} tokens, {d.layers} layers{', afresh' * fresh}"
        make = partial(_commit_delta, d, drafted, fresh)
        yield Subject(f"commit to states, {how}, {heads}", make, RECURRENCE, decodes=not fresh)
        yield Subject(f"commit to inputs, {how}, {channels}", partial(_commit_inputs, d, drafted, fresh), 0.0)


def _channels(d: Delta) -> int:
    return 2 * d.key_heads * d.dim + d.heads * d.value_dim


def _states(d: Delta) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a layer's states of one sequence."""
    return (d.width - 1, _channels(d)), state_shape(1, d.heads, d.dim, d.value_dim)[1:]


def _window(d: Delta, tokens: int, numbers: Numbers) -> Window:
    shapes = window_shapes(FIRST + tokens, _states(d), d.key_heads)
    made = {name: numbers.empty(*shape) for name, shape in shapes.items()}
    return Window(desks=numbers.empty(*desks_shape(_states(d), numbers.device)), **made)


def _batch(tokens: int, numbers: Numbers) -> Slices:
    """Return a batch of two sequences with drafts, the first of which has the window's beginning."""
    batch = Slices(2, 1, device=numbers.device)
    for slot, count in enumerate((FIRST, tokens)):
        batch.append(count, 7, [slot], slot, tentative=True)
    batch.send()
    return batch


def _delta(d: Delta, tokens: int, numbers: Numbers) -> Work:
    count = FIRST + tokens
    q, k = (numbers.floats(count, d.key_heads, d.dim, seed=seed) for seed in (1, 2))
    v, out = numbers.floats(count, d.heads, d.value_dim, seed=3), numbers.empty(count, d.heads, d.value_dim)
    beta, decay = ops.delta_gates(*gate_inputs(d, count, numbers))
    state, window = numbers.floats(2, *_states(d)[1], seed=9), _window(d, tokens, numbers)
    scratch, batch = numbers.empty(count, d.key_heads, 2), _batch(tokens, numbers)
    run = partial(ops.gated_delta, q, k, v, decay, beta, state, batch, out=out, scratch=scratch, window=window)
    return Work([run], [out, state, window.learned, window.keys, window.decay])


def _conv(d: Delta, tokens: int, numbers: Numbers) -> Work:
    count, channels = FIRST + tokens, _channels(d)
    x, out = numbers.floats(count, channels), numbers.empty(count, channels)
    weight, state = numbers.floats(d.width, channels, dtype="bfloat16"), numbers.floats(2, *_states(d)[0], seed=9)
    window, batch = _window(d, tokens, numbers), _batch(tokens, numbers)
    run = partial(ops.causal_conv, x, weight, state, batch, out=out, window=window)
    return Work([run], [out, state, window.inputs])


def _commit_delta(d: Delta, tokens: int, fresh: bool, numbers: Numbers) -> Work:
    shapes, (_, shape) = window_shapes(FIRST + tokens, _states(d), d.key_heads), _states(d)
    learned, keys = (numbers.floats(d.layers, *shapes[name], seed=seed) for name, seed in (("learned", 3), ("keys", 4)))
    here, wide = Numbers(Device("cpu")), (d.layers, *shapes["decay"])
    kept = ops.sigmoid_gate(here.empty(*wide).fill_(1.0), here.floats(*wide, seed=5)).to(numbers.device)
    before = numbers.floats(d.layers, *shape, seed=9)
    states = [before.clone() for _ in range(turns(numbers, 2 * before.nbytes))]
    runs = [partial(ops.commit_delta, own, learned, keys, kept, FIRST, STAND, fresh=fresh) for own in states]
    return Work(runs, [states[0]], 2 * before.nbytes, reset=lambda: states[0].copy_(before))


def _commit_inputs(d: Delta, tokens: int, fresh: bool, numbers: Numbers) -> Work:
    (rows, channels), _ = _states(d)
    window = numbers.floats(d.layers, rows + FIRST + tokens, channels, seed=3)
    before = numbers.floats(d.layers, rows, channels, seed=9)
    state = before.clone()
    run = partial(ops.commit_inputs, state, window, FIRST, STAND, fresh=fresh)
    return Work([run], [state], reset=lambda: state.copy_(before))
