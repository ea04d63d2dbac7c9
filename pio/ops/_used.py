"""What an operation uses of arguments that are too large to be copied whole: caches, states, and experts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from pio.kernels import _batch_record as fields
from pio.kernels import sizes
from pio.ops.experts import Choices
from pio.ops.slices import Slices

# Of an operation on a batch, by the names of arguments; of one on the choices of a router, "weights" are of experts.
_OF_A_BATCH: Final = {"keys": "blocks", "values": "blocks", "cache": "blocks", "state": "slots"}
_OF_CHOICES: Final = {"weights": "experts"}


def limits(arguments: Mapping[str, object]) -> dict[str, str]:
    """Return which arguments are used in part, by their names: their blocks, slots or experts."""
    found: dict[str, str] = {}
    for value in arguments.values():
        found |= _OF_A_BATCH if isinstance(value, Slices) else _OF_CHOICES if isinstance(value, Choices) else {}
    return found


def used_rows(arguments: Mapping[str, Any]) -> dict[str, Collection[int]]:
    """Return which blocks, slots and experts are used, in order, by what the arguments say that the CPU can read."""
    used: dict[str, Collection[int]] = {}
    for value in arguments.values():
        if isinstance(value, Slices):
            used |= _of_batch(value)
        elif isinstance(value, Choices):
            starts = value.starts.memoryview()
            used["experts"] = {e for e in range(len(starts) - 1) if starts[e] < starts[e + 1]}
    return used


def _of_batch(batch: Slices) -> dict[str, Collection[int]]:
    starts, past = batch.starts.memoryview(), batch.past.memoryview()
    blocks, slots = dict[int, None](), dict[int, None]()
    for sequence in range(batch.record.memoryview()[fields.SEQUENCES // 8]):
        length = past[sequence] + starts[sequence + 1] - starts[sequence]
        table = batch.block_tables[sequence].memoryview()
        blocks.update(dict.fromkeys(table[: -(-length // sizes.BLOCK)]))
        slots.update(dict.fromkeys((batch.slots[sequence].item(), batch.sources[sequence].item())))
    return {"blocks": blocks, "slots": slots}
