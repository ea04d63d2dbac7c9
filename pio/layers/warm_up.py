"""The first run of a model, before anybody waits for its answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

from pio import ops
from pio.cache.protocol import Cache, TentativeCache, begin_step, tentative_tokens
from pio.layers.decoder import Decoder
from pio.ops import compilation
from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor

_TOKENS = 2


def warm_up(model: Decoder, cache: Cache, check: Callable[[], object] = lambda: None) -> None:
    """Run one layer of each kind once, so that every kernel of a request is compiled or loaded when this returns.

    Weights of other layers are not read, so that a model maps as fast as ever. Whatever the first block of the cache
    holds is overwritten. Without the compiler there is nothing to warm. What ``check`` raises ends it, also while
    kernels are compiled.
    """
    if not compilation.enabled() or model.max_batch_tokens < _TOKENS:
        return
    elsewhere = model.placement.computed
    layers = [(layer, i in elsewhere) for i, layer in enumerate(model.layers)]
    kinds = {(type(layer), type(layer.mixer), type(layer.mlp), here): layer for layer, here in reversed(layers)}
    small = copy.copy(model)
    small.layers = list(kinds.values())
    if model.levels:  # behind a layer that another one follows
        small.layers += small.layers[-1:]
    with compilation.listing() as jobs:
        _run(small, cache)
    compilation.compile_missing(jobs, check)
    check()
    _run(small, cache)


def _run(model: Decoder, cache: Cache) -> None:
    """Compute a token behind two others; a block that cannot be recorded is refused here."""
    if model.encoder is not None:
        model.encoder.warm_up()
    batch = model.new_batch(_TOKENS, 1, 1, 1)
    tentative = bool(cache.state_bytes) and tentative_tokens(cache) >= _TOKENS
    batch.add([0] * _TOKENS, 0, [0], 1, tentative=tentative)
    begin_step(cache, batch)
    batch.send()
    with ops.recording():
        row = model.hidden_states(batch, cache)  # (1, hidden)
        model.norm(row, row)
    model.lm_head.first(row)
    logits = Tensor.zeros((1, model.vocab_size), device=model.device)
    Sampler(model.vocab_size, rows=1, device=model.device).sample(logits, [Choice()])
    if tentative:
        cast(TentativeCache, cache).commit(0, _TOKENS)
