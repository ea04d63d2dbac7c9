"""``pio.load``: from a path or a name to a model that is ready to use."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from pio import registry
from pio.device import memory_errors
from pio.loading.checkpoint import DEMO, Checkpoint, resolve
from pio.manifest import import_object

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
    """
    with memory_errors(f"loading {path_or_name}"):
        folder = resolve(path_or_name, download=download)
        config = Checkpoint(folder).config
        manifest, listed = registry.choose(config, plugin)
    if not listed and path_or_name != DEMO:
        _log.warning(
            "no plugin lists this size of %s; running it with %s, the nearest one", config["model_type"], manifest.name
        )
    model: TextModelPlugin = import_object(manifest.factory)(path=folder, profile=profile, **options)
    return model.load_model()
