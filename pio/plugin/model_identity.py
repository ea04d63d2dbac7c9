"""What tells a loaded model apart, for what is kept of it on disk: all that decides the bits which it computes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pio.config.runtime import RuntimeConfig
from pio.device import Device
from pio.errors import ConfigError
from pio.loading.weights import Weights
from pio.ops import compilation
from pio.ops.bfloat16 import multiplies_bfloat16
from pio.system import HERE

# Options that change no bit of what layers keep of given tokens, or are told in another way: keys say how positions are
# stored, and ``identity`` is told the device.
INDIFFERENT: Final = frozenset(
    "profile device mmap threads memory_limit context_length cache_tokens kv_cache_dtype prefill_chunk "
    "max_batch_sequences literal_messages max_pixels media_cache background allow_remote prefix_cache "
    "prefix_cache_path prefix_cache_disk speculation max_draft_tokens progress gpu_memory offloaded_experts".split()
)


def identity(
    plugin: type,
    config: dict[str, Any],
    weights: Weights,
    runtime: RuntimeConfig,
    notes: Path,
    check: Callable[[], object],
    device: Device,
    computed: tuple[int, ...] = (),
    unmade: frozenset[str] = frozenset(),
) -> bytes:
    """Return a digest of a model's weights and config, of the options that it runs with, and of all code that runs it.

    Where the model's folder lies, what it is called and on which machine it runs is no part of it, nor are options that
    are known to change no bit; a new option is one of these only when it is listed. Of code those packages count that
    the plugin's class and its bases are in, and where these lie; not what they import from other packages, and not
    Python's own, whose version is told by that of pio's kernels.

    Args:
        plugin: Its class.
        config: What config.json holds.
        weights: Its tensors, every byte of which counts.
        runtime: How it runs.
        notes: A folder where digests of weight files are noted.
        check: Called now and then; what it raises ends the work.
        device: Where it runs. Which GPU of a kind it is does not count; the CPU and all of them compute other bits.
        computed: Layers whose experts the CPU computes for a model on a GPU, with last bits of its own.
        unmade: Kernels of which the same is true, for they could not be made for this GPU.

    Raises:
        ConfigError: There are no sources of the code.
        CheckpointError: A weight file cannot be read.
    """
    told: dict[str, Any] = {
        "plugin": f"{plugin.__module__}.{plugin.__qualname__}",
        "device": compilation.code_of(device),
        "code": _code(plugin),
        "config": config,
        "weights": weights.digest(notes, check),
        "options": {
            name: repr(getattr(runtime, name)) for name in RuntimeConfig.model_fields if name not in INDIFFERENT
        },
    }
    if runtime.activation_dtype == "bfloat16" and device.stream is None:  # the one thing in which processors differ
        told["products"] = (HERE.machine, multiplies_bfloat16())
    if computed:
        told["computed"] = computed
    if unmade:
        told["unmade"] = sorted(unmade)
    return sha256(json.dumps(told, sort_keys=True).encode()).digest()


def _code(plugin: type) -> dict[str, str]:
    """Return digests of the sources of all packages that a plugin is made of."""
    found: dict[str, str] = {}
    packages = {"pio", *(base.__module__.partition(".")[0] for base in plugin.__mro__)}
    for package in sorted(packages - sys.stdlib_module_names):
        stamp = compilation.code_stamp(package)
        if stamp is None:
            raise ConfigError(
                f"prefix_cache_path cannot be used here: there are no sources of {package}, so that nobody can tell "
                "what another version of it has computed; leave it out"
            )
        found[package] = stamp
    return found
