"""Where a model keeps beginnings of prompts beyond the end of the process, as its runtime options say it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pio.config.runtime import RuntimeConfig
from pio.device import Device
from pio.engine.stored_prefixes import DiskOptions
from pio.errors import ConfigError
from pio.loading.weights import Weights
from pio.ops import compilation
from pio.plugin.model_identity import identity
from pio.store.folder import prepare


def check_disk(runtime: RuntimeConfig) -> None:
    """Refuse options that contradict others.

    Raises:
        ConfigError: They do.
    """
    if runtime.prefix_cache_path is None:
        if "prefix_cache_disk" in runtime.model_fields_set:
            raise ConfigError(
                "prefix_cache_disk is of no use without a folder: give prefix_cache_path too, or leave it out"
            )
    elif not runtime.prefix_cache:
        raise ConfigError("prefix_cache_path contradicts prefix_cache=False; leave one of them out")


def disk_folder(runtime: RuntimeConfig) -> Path | None:
    """Return the folder that the options name, which is there and can be trusted then; None where they name none.

    Raises:
        ConfigError: It cannot be used, or the options contradict each other.
    """
    check_disk(runtime)
    return None if runtime.prefix_cache_path is None else prepare(runtime.prefix_cache_path)


def disk_options(
    folder: Path | None,
    runtime: RuntimeConfig,
    model: tuple[type, dict[str, Any], Weights],
    check: Callable[[], object],
    device: Device,
    computed: tuple[int, ...] = (),
    unmade: set[str] | None = None,
) -> DiskOptions | None:
    """Return where what of a model is kept; None where nothing is.

    Args:
        folder: What ``disk_folder`` has returned.
        runtime: The options.
        model: Class of its plugin, what config.json holds, and its weights.
        check: Called between any two pieces of weights that are read; what it raises ends that.
        device: Where the model runs.
        computed: Layers whose experts the CPU computes for a model on a GPU.
        unmade: Kernels that this model wanted as it was loaded and warmed up, and that cannot be made for its GPU.
            Those that its steps want later are added, and end what is kept.

    Raises:
        ConfigError: Nobody can tell the model apart.
        CheckpointError: A weight file cannot be read.
    """
    if folder is None:
        return None
    names = set[str]() if unmade is None else unmade
    known = frozenset(names)
    told = identity(*model, runtime, folder, check, device, computed, known)
    watch = partial(compilation.noting_unmade, names)
    return DiskOptions(folder, runtime.prefix_cache_disk, told, lambda: names <= known, watch)
