"""Plugins of other packages that were written for an earlier pio: one error says what they met and what has changed."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from pio.errors import ConfigError

OURS: Final = "pio"  # the package whose code is no plugin's
MISFITS: Final = (TypeError, AttributeError, ImportError)  # what Python raises where one calls what has changed


def _gone(module: str, names: str) -> str:
    """A pattern of what Python says where a module no longer has one of these names."""
    return rf"'({names})' from '{module}'|^module '{module}' has no attribute '({names})'"


# What Python says of something of pio's where the old way is gone, and what takes its place; the first that fits is
# told.
_CHANGED: Final = (
    (
        _gone(r"pio\.device", "MemoryBudget") + r"|^pio\.device\.MemoryBudget has moved",
        "MemoryBudget is imported from pio.memory.budget",
    ),
    (
        _gone(r"pio\.device", "allocated_bytes|Allocation|format_bytes|memory_refused|memory_errors"),
        "what memory is made of lies in pio.memory: allocation, budget, refusal, sizes",
    ),
    (
        _gone(r"pio\.layers\.\w+", "Activations|ExpertActivations|Records|Views|make_room")
        + r"|^No module named 'pio\.layers\.room'",
        "a block asks source.workspace.rooms for what it computes in when it is built, and takes the views for "
        "x.shape[0] tokens when it runs",
    ),
    (
        r"^Workspace\.__init__\(\)|^'Workspace' object has no attribute",
        "a model computes in source.workspace, which is there already; its blocks ask it for rooms",
    ),
    (
        r"^Decoder\.__init__\(\)",
        "Decoder takes workspace=source.workspace and max_batch_outputs=runtime.batch_outputs, and neither threads "
        "nor rooms; Decoder.assemble does that for most models",
    ),
    (
        r"^RotaryEmbedding\.__init__\(\)",
        "the rotary embedding takes the source first: RotaryEmbedding(source, rope, width)",
    ),
    (r"^RotaryEmbedding\.__call__\(\)", "rotary(positions) fills tables of its own, rotary.tables(tokens)"),
    (
        r"^GroupedQueryAttention\.__init__\(\)",
        "attention takes the rotary embedding behind the number of its layer",
    ),
    (r"^SparseMoE\.__init__\(\)", "a mixture of experts asks source.workspace for its memory and is given none"),
    (
        r"^(GroupedQueryAttention|SwiGLU|SparseMoE)\.__call__\(\)",
        "mixers are called with (x, residual, batch, cache) and feed-forward blocks with (x, residual)",
    ),
    (
        r"^project\(\)|^'(Source|Linear)' object has no attribute 'records'",
        "project takes source.workspace in the place of records",
    ),
    (
        r"^'(Source|Outline|Rehearsal)' object has no attribute 'held'|^\w+\.__init__\(\) .* argument 'held'|"
        + _gone(r"pio\.layers\.source", "Held"),
        "source.held is source.inventory, and Held is Inventory",
    ),
    (r"^'(Source|Outline|Rehearsal)' object has no attribute 'exact'", "source.exact is source.take_float32"),
    (
        r"^'\w+' object has no attribute 'threads'|\(\) got an unexpected keyword argument 'threads'",
        "nothing takes or has threads: an operation splits over those of its first tensor's device, and "
        "source.device is the model's",
    ),
    (
        r"^'Batch' object has no attribute 'positions'",
        "the positions that turn queries and keys are batch.rotary_positions, int32 (axes, max_tokens)",
    ),
    (_gone(r"pio\.cache\.\w+", "Snapshot"), "Snapshot is imported from pio.cache.snapshot"),
    (r"\.snapshot\(\) missing", "a snapshot is told behind how many tokens it is: cache.snapshot(slot, length)"),
    (_gone(r"pio\.ops(\.\w+)?", "Penalties"), "Penalties is imported from pio.ops.penalties"),
    (
        _gone(r"pio\.ops\.attention", "cache_format"),
        "what a cache hands to the layers says its format itself: keys.format, see pio.ops.Pages",
    ),
    (
        _gone(r"pio\.loading\.weights", "first_non_finite"),
        "first_non_finite is an operation: pio.ops.first_non_finite(tensor)",
    ),
    (
        r"^No module named 'pio\.plugin\.(loaded|loads)'",
        "LoadedModel lies in pio.plugin.loaded_model, outline in pio.plugin.assembly, Loads in pio.plugin.one_load",
    ),
    (
        r"^No module named 'pio\.(registry|manifest|metadata|prompts|lifecycle|loaded|loader|quantizer)'|"
        + _gone("pio", "registry|manifest"),
        "what finds, describes and loads plugins lies in pio.plugin",
    ),
    (
        r"^No module named 'pio\.loading\.(tokenizer|messages|detokenizer|reasoning|tool_calls|\w+_tokens|template)",
        "what makes text of tokens and prompts of messages lies in pio.text",
    ),
)
_OTHERWISE: Final = "if it was written for an earlier version, docs/adding-a-model.md says how it is done now"


def changed(error: BaseException) -> str | None:
    """Return what takes the place of an old way and where to read on, where an error comes of one; else None."""
    if not _is_of_pio(error):
        return None
    said = str(error)
    return next((f"{now}, see docs/adding-a-model.md" for old, now in _CHANGED if re.search(old, said)), None)


def remedy(error: BaseException) -> str:
    """Return what takes the place of an old way where an error comes of one, and else where to read on."""
    return changed(error) or _OTHERWISE


@contextmanager
def plugin_code(plugin: type) -> Generator[None]:
    """Turn what Python raises in the code of another package's plugin into an error that says where and what to do.

    Args:
        plugin: The plugin's class; all of its package counts as its code, and of pio's own plugins nothing does.

    Raises:
        ConfigError: The plugin calls something with arguments that it does not take, or asks for what is not there.
    """
    try:
        yield
    except MISFITS as error:
        at = place(error, plugin.__module__)
        if at is None:  # no code of the plugin's had a part in it
            raise
        name = getattr(plugin, "manifest_name", plugin.__name__)
        failed = "failed at" if changed(error) is None else "does not fit this version of pio:"
        raise ConfigError(f"plugin {name} {failed} {at}: {type(error).__name__}: {error}; {remedy(error)}") from error


def place(error: BaseException, module: str) -> str | None:
    """Return the innermost line of a plugin that led to an error, if any did.

    Args:
        error: As it was caught.
        module: Any module of the plugin's package, or what such a one has, as ``module:name``. Plugins of pio's own
            have no such line: what fails in them is a fault of pio.
    """
    package = _package(module)
    if package == OURS:
        return None
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if _package(str(frame.f_globals.get("__name__", ""))) == package:
            return f"{Path(frame.f_code.co_filename).name}:{line}, {frame.f_code.co_qualname}"
    return None


def _package(module: str) -> str:
    return re.split("[.:]", module, maxsplit=1)[0]


def _is_of_pio(error: BaseException) -> bool:
    """Whether what an error names is pio's: a module, what has no such attribute, or the function that was called."""
    if isinstance(error, ImportError):
        return _package(error.name or str(error)) == OURS  # pio.device names itself what has moved
    if isinstance(error, AttributeError):
        owner = cast(Any, error.obj)
        if isinstance(owner, ModuleType):
            return _package(owner.__name__) == OURS
        kind: type = owner if isinstance(owner, type) else type(owner)
        return _package(kind.__module__) == OURS
    called = re.match(r"(\w+)[\w.]*\(\)", str(error))
    return called is not None and _is_pios_function(called[1], error)


def _is_pios_function(name: str, error: BaseException) -> bool:
    """Whether a class or function that an error names is pio's: the one that the caller knows, or any module has."""
    *_, (caller, _) = traceback.walk_tb(error.__traceback__)
    known = caller.f_globals.get(name)
    if known is not None:
        return _package(str(getattr(known, "__module__", ""))) == OURS
    return any(
        _package(at) == OURS and getattr(getattr(module, "__dict__", {}).get(name), "__module__", None) == at
        for at, module in list(sys.modules.items())  # None where an import was refused
    )
