"""``pio.load``: from a path or a name to a model that is ready to use."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pio.errors import CheckpointError
from pio.loading.checkpoint import DEMO, Checkpoint, resolve
from pio.memory.refusal import memory_errors
from pio.plugin import factory, registry
from pio.threads import require_turns

if TYPE_CHECKING:
    from pio.plugin import TextModelPlugin

_log = logging.getLogger("pio")


def load(
    path_or_name: str | os.PathLike[str],
    *,
    plugin: str | None = None,
    download: bool = False,
    profile: str = "balanced",
    **options: Any,
) -> TextModelPlugin:
    """Load a model.

    Args:
        path_or_name: A folder as Hugging Face shows it (config.json, safetensors, tokenizer.json); a repo id in the
            local cache, such as ``"Qwen/Qwen3-0.6B"``; or ``"demo"``, the small model inside the package.
        plugin: Name of the plugin to run it with; by default the one that fits best.
        download: Fetch a repo that is not in the local cache.
        profile: Preset of the options: balanced, performance, memory_efficient or accuracy.
        **options: Fields of ``RuntimeConfig``: device, dtype, memory_limit, threads, context_length, …

    Returns:
        The model, ready to be called from any thread. Use it as a context manager, or call ``cleanup()``.

    Raises:
        CheckpointError: There is no such model, or its folder is damaged.
        UnsupportedModelError: No plugin runs it.
        ConfigError: An option is unknown or its value cannot be used.
        OutOfMemoryError: It does not fit the limit or the machine.
        DeviceError: This Python runs without its global lock.
    """
    require_turns()
    with memory_errors(f"loading {path_or_name}"):
        folder = find(path_or_name, download=download)
        config = Checkpoint(folder).config
        manifest, listed = registry.choose(config, plugin)
    if not listed and path_or_name != DEMO:  # nothing differs for it: the architecture is computed alike in every size
        _log.info("no plugin lists this size of %s; %s runs it", config["model_type"], manifest.name)
    return factory.make(manifest, path=folder, profile=profile, **options).load_model()


def find(path_or_name: str | os.PathLike[str], *, download: bool = False) -> Path:
    """Return the folder of a model, as ``resolve`` does; the error says which repo a name that is nearly one may mean.

    Raises:
        CheckpointError: There is no such model here.
    """
    try:
        return resolve(path_or_name, download=download)
    except CheckpointError as error:
        meant = registry.meant(str(path_or_name))
        raise CheckpointError(f"{error}; did you mean {meant!r}?") if meant else error from None
