"""Do recorded steps compute what a model's Python does? They run again on other inputs, and afresh, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pio.cache.protocol import Cache
from pio.errors import RecordingError
from pio.layers.decoder import Decoder
from pio.plugin import TextModelPlugin
from pio.tensor import Tensor
from pio.testing.compare import bits

CONTEXT = 12  # tokens of each of the two sequences


class Slice(NamedTuple):
    """Which tokens of a sequence a step computes: ``length`` behind ``past``, with logits of the last ``outputs``."""

    sequence: int
    past: int
    length: int
    outputs: int = 1


# Each shape comes twice: recorded, then again with other tokens, another past, another sequence or another order.
STEPS: tuple[tuple[Slice, ...], ...] = (
    (Slice(0, 0, 4),),
    (Slice(1, 0, 4),),
    (Slice(0, 4, 1),),
    (Slice(1, 4, 1),),
    (Slice(0, 5, 1), Slice(1, 5, 1)),
    (Slice(1, 6, 1), Slice(0, 6, 1)),
    (Slice(0, 7, 1), Slice(1, 7, 3)),
    (Slice(1, 10, 1), Slice(0, 8, 3)),
    (Slice(0, 0, 3, 0),),
    (Slice(1, 0, 3, 0),),
    (Slice(0, 3, 2, 2),),
    (Slice(1, 3, 2, 2),),
)


def check_steps(model: TextModelPlugin) -> list[str]:
    """Run steps of a loaded model recorded and afresh, and compare their logits to the bit.

    No request may run meanwhile.

    Returns:
        What is wrong, in words that name what to do; an empty list for a model that complies.
    """
    decoder = model.loaded.model
    steps = [step for step in STEPS if _fits(decoder, step)]
    try:
        again = _run(decoder, steps, afresh=False)
        fresh = _run(decoder, steps, afresh=True)
    except RecordingError as error:
        return [str(error)]
    finally:
        decoder.forget_steps()
    for step, found, expected in zip(steps, again, fresh, strict=True):
        if bits(found) != bits(expected):
            return [_differs(step, found.tolist(), expected.tolist())]
    return []


def _fits(decoder: Decoder, step: Sequence[Slice]) -> bool:
    return (
        sum(s.length for s in step) <= decoder.max_batch_tokens
        and len(step) <= decoder.max_batch_sequences
        and sum(s.outputs for s in step) <= decoder.max_batch_outputs
        and max(s.past + s.length for s in step) <= decoder.max_positions
    )


def _run(decoder: Decoder, steps: Sequence[Sequence[Slice]], *, afresh: bool) -> list[Tensor]:
    """Return the logits of all steps, which build on each other; ``afresh`` runs the Python of each."""
    cache: Cache = decoder.new_cache(2 * CONTEXT)
    each = -(-CONTEXT // cache.block_size)
    if cache.num_blocks < 2 * each:  # rounded up to one block for both
        cache.free()
        cache = decoder.new_cache(2 * each * cache.block_size)
    batch = decoder.new_batch(CONTEXT, 2, each, CONTEXT)
    decoder.forget_steps()
    found: list[Tensor] = []
    try:
        for number, step in enumerate(steps):
            batch.begin()
            for s in step:
                tokens = [(7 + 31 * number + 11 * s.sequence + 5 * i) % decoder.vocab_size for i in range(s.length)]
                blocks = range(s.sequence * each, (s.sequence + 1) * each)
                batch.add(tokens, s.past, blocks, s.outputs, min(s.sequence, decoder.max_batch_sequences - 1))
            if afresh:
                decoder.forget_steps()
            found.append(decoder.forward(batch, cache).clone())
    finally:
        cache.free()
    return found


def _differs(step: Sequence[Slice], found: list[list[float]], expected: list[list[float]]) -> str:
    rows = range(len(expected))
    pairs = ((r, t) for r in rows for t, value in enumerate(expected[r]) if found[r][t] != value)
    row, token = next(pairs, (0, 0))
    tokens, sequences = sum(s.length for s in step), len({s.sequence for s in step})
    return (
        f"a recorded step of {tokens} tokens of {sequences} sequences gives other logits when it runs again than when "
        f"its Python runs: {found[row][token]!r} and {expected[row][token]!r} in row {row} for token {token}. Some "
        "block does something in Python between operations that depends on values, or that changes from call to call; "
        "put it into an operation of pio.ops or a function for ops.host_call, or compute it when the block is built"
    )
