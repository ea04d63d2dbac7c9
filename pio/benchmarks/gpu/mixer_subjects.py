"""What mixes tokens, as subjects: attention over every cache, over latents, and layers with a state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from pio import ops
from pio.benchmarks.gpu.check_shapes import Delta, Shapes
from pio.benchmarks.gpu.numbers import Numbers
from pio.benchmarks.gpu.subject import Subject, Work
from pio.ops.attention import cache_layout
from pio.ops.gated_delta import state_shape
from pio.ops.latent_attention import latent_layout
from pio.ops.slices import Slices
from pio.tensor import Tensor

ATTENTION: Final = {"int8": 1e-3}  # queries and probabilities are rounded, which a last bit may turn
FLOATS: Final = 2e-5  # of attention over floats: factors are the sum of two numbers of sixteen bits
RECURRENCE: Final = 5e-6


def attention(shapes: Shapes) -> Iterator[Subject]:
    """Return attention of a token and of a piece of a prompt, over caches of every format."""
    for form in shapes.caches:
        for heads in shapes.heads:
            for length in shapes.lengths:
                for tokens in (1, shapes.chunk):
                    yield attend(form, heads, tokens, length)


def attend(form: str, heads: tuple[int, int, int], tokens: int, length: int) -> Subject:
    """Return attention of some tokens at the end of a sequence."""
    name = f"attention {form}, {tokens} of {length}, heads {heads[0]}/{heads[1]} x {heads[2]}"
    make = partial(_attention, form, heads, tokens, length)
    return Subject(name, make, ATTENTION.get(form, FLOATS), decodes=tokens == 1)


def _attention(form: str, shape: tuple[int, int, int], tokens: int, length: int, numbers: Numbers) -> Work:
    heads, kv_heads, dim = shape
    out, q = numbers.empty(tokens, heads, dim), numbers.floats(tokens, heads, dim)
    scratch = ops.attention_scratch(dim, numbers.device)
    whole, tables = numbers.sequence((length, 0))
    batch, _ = numbers.sequence((tokens, length - tokens))
    blocks = len(tables[0])
    stored, key_shape, value_shape = cache_layout(form, blocks, kv_heads, dim)
    k, v = (numbers.floats(length, kv_heads, dim, seed=seed) for seed in (3, 4))
    nbytes = length * sum(Tensor.empty(s, stored).nbytes for s in (key_shape, value_shape)) / (blocks * 32)

    def layer() -> Callable[[], object]:
        keys, values = (ops.Pages.of(Tensor.zeros(s, stored, numbers.device), form) for s in (key_shape, value_shape))
        ops.write_cache(keys, values, k, v, whole, scratch)
        return lambda: ops.paged_attention(q, keys, values, batch, scratch, out=out)

    runs = [layer() for _ in range(turns(numbers, nbytes))]
    return Work(runs, [out], nbytes, 2 * heads * dim * tokens * (length - (tokens - 1) / 2))


def latent_attention(shapes: Shapes) -> Iterator[Subject]:
    """Return attention over latents, likewise."""
    heads, rank, rope, *_ = shapes.latents
    for form in shapes.caches:
        for length in shapes.lengths:
            for tokens in (1, shapes.chunk):
                name = f"latent attention {form}, {tokens} of {length}, {heads} heads, {rank} + {rope}"
                make = partial(_latent, form, (heads, rank, rope), tokens, length)
                yield Subject(name, make, ATTENTION.get(form, FLOATS), decodes=tokens == 1)


def _latent(form: str, shape: tuple[int, int, int], tokens: int, length: int, numbers: Numbers) -> Work:
    heads, rank, rope = shape
    out, scratch = numbers.empty(tokens, heads, rank), ops.latent_scratch(rank, rope, numbers.device)
    asked, turned = numbers.floats(tokens, heads, rank), numbers.floats(tokens, heads, rope, seed=2)
    whole, tables = numbers.sequence((length, 0))
    batch, _ = numbers.sequence((tokens, length - tokens))
    stored, pool = latent_layout(form, len(tables[0]), rank, rope)
    latent, key = numbers.floats(length, rank, seed=3), numbers.floats(length, rope, seed=4)
    nbytes = length * Tensor.empty(pool, stored).nbytes / (len(tables[0]) * 32)

    def layer() -> Callable[[], object]:
        cache = ops.Pages.of(Tensor.zeros(pool, stored, numbers.device), form)
        ops.write_latent_cache(cache, latent, key, whole)
        return lambda: ops.latent_attention(asked, turned, cache, batch, scratch, out=out, scale=0.05)

    return Work([layer() for _ in range(turns(numbers, nbytes))], [out], nbytes)


def turns(numbers: Numbers, nbytes: float) -> int:
    """Return among how many caches or states of so many bytes a measurement takes turns."""
    return max(1, round(numbers.cold / nbytes)) if numbers.cold else 1


def recurrences(shapes: Shapes) -> Iterator[Subject]:
    """Return the parts of a recurrent layer, for a token and for a piece of a prompt."""
    for tokens in (1, shapes.chunk):
        d = shapes.delta
        name = f"gated delta, {tokens} tokens, heads {d.key_heads}/{d.heads}, {d.dim} x {d.value_dim}"
        yield Subject(name, partial(_delta, d, tokens), RECURRENCE, decodes=tokens == 1)
        channels = 2 * d.key_heads * d.dim + d.heads * d.value_dim
        yield Subject(f"convolution, {tokens} x {channels}", partial(_conv, d, channels, tokens), RECURRENCE)
        yield Subject(f"gates of the delta rule, {tokens} x {d.heads}", partial(_gates, d, tokens), RECURRENCE)


def _state(d: Delta, numbers: Numbers, tokens: int) -> tuple[Tensor, Tensor, Slices]:
    shape = state_shape(1, d.heads, d.dim, d.value_dim)
    before = numbers.floats(*shape, seed=9)
    batch, _ = numbers.sequence((tokens, 7))
    return before, before.clone(), batch


def _delta(d: Delta, tokens: int, numbers: Numbers) -> Work:
    q, k = (numbers.floats(tokens, d.key_heads, d.dim, seed=seed) for seed in (1, 2))
    v, out = numbers.floats(tokens, d.heads, d.value_dim, seed=3), numbers.empty(tokens, d.heads, d.value_dim)
    beta, decay = ops.delta_gates(*gate_inputs(d, tokens, numbers))
    scratch = numbers.empty(tokens, d.key_heads, 2)
    before, state, batch = _state(d, numbers, tokens)
    states = [state, *(before.clone() for _ in range(turns(numbers, 2 * state.nbytes) - 1))]
    runs = [partial(ops.gated_delta, q, k, v, decay, beta, own, batch, out=out, scratch=scratch) for own in states]
    return Work(runs, [out, state], 2 * state.nbytes, reset=lambda: state.copy_(before))


def _conv(d: Delta, channels: int, tokens: int, numbers: Numbers) -> Work:
    x, out = numbers.floats(tokens, channels), numbers.empty(tokens, channels)
    weight, before = numbers.floats(d.width, channels, dtype="bfloat16"), numbers.floats(1, d.width - 1, channels)
    state, (batch, _) = before.clone(), numbers.sequence((tokens, 7))
    run = partial(ops.causal_conv, x, weight, state, batch, out=out)
    return Work([run], [out, state], reset=lambda: state.copy_(before))


def _gates(d: Delta, tokens: int, numbers: Numbers) -> Work:
    beta, decay = numbers.empty(tokens, d.heads), numbers.empty(tokens, d.heads)
    given = gate_inputs(d, tokens, numbers)
    return Work([partial(ops.delta_gates, *given, out_beta=beta, out_decay=decay)], [beta, decay])


def gate_inputs(d: Delta, tokens: int, numbers: Numbers) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what ``ops.delta_gates`` takes for some tokens."""
    b, a = (numbers.floats(tokens, d.heads, seed=seed) for seed in (5, 6))
    return b, a, numbers.floats(d.heads, seed=7), numbers.floats(d.heads, seed=8)
