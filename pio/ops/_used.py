"""What an operation uses of arguments that are too large to be copied whole: caches, states, experts, and tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from pio.kernels import _batch_record as fields
from pio.kernels import sizes
from pio.ops.quantized import BLOCK
from pio.ops.routing import Choices
from pio.ops.slices import Slices
from pio.tensor import Tensor

# Of an operation on a batch, by the names of arguments; of one on the choices of a router, "weights" are of experts.
_OF_A_BATCH: Final = {"keys": "blocks", "values": "blocks", "cache": "blocks", "state": "slots"}
_OF_CHOICES: Final = {"weights": "experts"}
_OF_INDICES: Final = {"table": "rows", "packed": "groups"}  # of a table, or of a packed one, whose rows lie in groups


def limits(arguments: Mapping[str, object]) -> dict[str, str]:
    """Return which arguments are used in part, by their names: their blocks, slots, experts, rows or groups of rows."""
    found: dict[str, str] = dict(_OF_INDICES) if isinstance(arguments.get("indices"), Tensor) else {}
    for value in arguments.values():
        found |= _OF_A_BATCH if isinstance(value, Slices) else _OF_CHOICES if isinstance(value, Choices) else {}
    return found


def used_rows(arguments: Mapping[str, Any]) -> dict[str, Collection[int]]:
    """Return which of those are used, by what the arguments say that the CPU can read."""
    used: dict[str, Collection[int]] = {}
    indices = arguments.get("indices")
    if isinstance(indices, Tensor):
        rows: list[int] = indices.tolist()
        used |= {"rows": dict.fromkeys(rows), "groups": dict.fromkeys(row // BLOCK for row in rows)}
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
