"""Plugins of other packages that were written for an earlier pio: one error says what they met and what has changed."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pio.errors import ConfigError

_OURS: Final = frozenset(("pio", "numba", "llvmlite", "pydantic"))  # what pio itself runs in while it loads

# What Python says where the old way is gone, and what takes its place; the first that fits is told.
_CHANGED: Final = (
    (r"\bMemoryBudget\b", "MemoryBudget is imported from pio.memory.budget"),
    (
        r"'(allocated_bytes|Allocation|format_bytes|memory_refused|memory_errors)' from 'pio\.device'",
        "what memory is made of lies in pio.memory: allocation, budget, refusal, sizes",
    ),
    (
        r"\b(Activations|ExpertActivations|Records|Views|make_room|pio\.layers\.room)\b",
        "a block asks source.workspace.rooms for what it computes in when it is built, and takes the views for "
        "x.shape[0] tokens when it runs",
    ),
    (
        r"\bWorkspace\.__init__\(\)|'Workspace' object",
        "a model computes in source.workspace, which is there already; its blocks ask it for rooms",
    ),
    (
        r"\bDecoder\.__init__\(\)",
        "Decoder takes workspace=source.workspace and max_batch_outputs=runtime.batch_outputs, and neither threads "
        "nor rooms; Decoder.assemble does that for most models",
    ),
    (
        r"\bRotaryEmbedding\.__init__\(\)",
        "the rotary embedding takes the source first: RotaryEmbedding(source, rope, width)",
    ),
    (r"\bRotaryEmbedding\.__call__\(\)", "rotary(positions) fills tables of its own, rotary.tables(tokens)"),
    (
        r"\bGroupedQueryAttention\.__init__\(\)",
        "attention takes the rotary embedding behind the number of its layer",
    ),
    (r"\bSparseMoE\.__init__\(\)", "a mixture of experts asks source.workspace for its memory and is given none"),
    (
        r"\.__call__\(\)",
        "mixers are called with (x, residual, batch, cache) and feed-forward blocks with (x, residual)",
    ),
    (r"\bproject\(\)|'records'", "project takes source.workspace in the place of records"),
    (r"'held'|'Held'", "source.held is source.inventory, and Held is Inventory"),
    (r"'exact'", "source.exact is source.take_float32"),
    (
        r"'threads'",
        "nothing takes or has threads: an operation splits over those of its first tensor's device, and "
        "source.device is the model's",
    ),
    (
        r"'Batch' object has no attribute 'positions'",
        "the positions that turn queries and keys are batch.rotary_positions, int32 (axes, max_tokens)",
    ),
    (r"'Snapshot' from 'pio\.cache", "Snapshot is imported from pio.cache.snapshot"),
    (r"\bsnapshot\(\) missing", "a snapshot is told behind how many tokens it is: cache.snapshot(slot, length)"),
    (r"'Penalties' from 'pio\.ops", "Penalties is imported from pio.ops.penalties"),
    (
        r"No module named 'pio\.(registry|manifest|metadata|prompts|lifecycle|loaded|loader|quantizer)'"
        r"|'(registry|manifest)' from 'pio'",
        "what finds, describes and loads plugins lies in pio.plugin",
    ),
    (
        r"No module named 'pio\.loading\.(tokenizer|messages|detokenizer|reasoning|tool_calls|\w+_tokens|template)",
        "what makes text of tokens and prompts of messages lies in pio.text",
    ),
)
_OTHERWISE: Final = "if it was written for an earlier version, docs/adding-a-model.md says how it is done now"


def remedy(error: BaseException) -> str:
    """Return what has changed where an error looks like an old call, and else where to read on."""
    said = str(error)
    return next((f"{now}, see docs/adding-a-model.md" for old, now in _CHANGED if re.search(old, said)), _OTHERWISE)


@contextmanager
def plugin_code(name: str) -> Generator[None]:
    """Turn what Python raises in the code of another package's plugin into an error that says where and what to do.

    Raises:
        ConfigError: The plugin calls something with arguments that it does not take, or asks for what is not there.
    """
    try:
        yield
    except (TypeError, AttributeError, ImportError) as error:
        at = _place(error)
        if at is None:  # no code but pio's own had a part in it
            raise
        raise ConfigError(
            f"plugin {name} does not fit this version of pio: {at}: {type(error).__name__}: {error}; {remedy(error)}"
        ) from error


def _place(error: BaseException) -> str | None:
    """Return the innermost line of a plugin's package that led to an error, if any did."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _OURS and package not in sys.stdlib_module_names:
            return f"{Path(frame.f_code.co_filename).name}:{line}, {frame.f_code.co_qualname}"
    return None
