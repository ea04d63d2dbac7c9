"""The model of a command: loaded with the command's options, and described for who asks with ``--verbose``."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pio.cli.console import count, note, size
from pio.errors import ConfigError
from pio.progress.progress import DELAY
from pio.progress.stream import is_terminal
from pio.system import HERE

if TYPE_CHECKING:
    from pio.plugin import TextModelPlugin

_log = logging.getLogger("pio.cli")


@contextmanager
def loaded_model(name: str, options: Mapping[str, Any]) -> Generator[TextModelPlugin]:
    """Load a model for as long as the context is open; log where it is, what it takes and where its kernels are from.

    Args:
        name: As ``pio.load`` takes it.
        options: Arguments of ``pio.load``.
    """
    from pio.ops import compilation
    from pio.plugin.loader import load

    if _log.isEnabledFor(logging.INFO):
        options = {"progress": False, **options}  # a line that moves and lines that stay would tear each other
    # without a terminal nothing else says why it takes so long
    silent = options.get("progress") is None and not is_terminal(sys.stderr)
    compiled: list[str] = []
    there: list[str] = []
    started = _Noting(compiled) if silent else compiled.append
    with compilation.watch(started, loaded=there.append), load(name, **options) as model:
        describe(name, model)
        yield model
        folder = compilation.cache_folder()
        _log.info("kernels: %d compiled, %d taken from %s", len(compiled), len(there), folder or "nowhere")


def require_chat(name: str) -> None:
    """Refuse a model that cannot chat before anything of it is loaded.

    Raises:
        CheckpointError: There is no such model, or its template is damaged.
        ConfigError: It has no chat template.
    """
    from pio.plugin.loader import find
    from pio.text.chat_template import ChatTemplate

    if not ChatTemplate.from_folder(find(name)):
        raise ConfigError(
            f"{name} has no chat template, as models have that only go on with a text: use "
            f"pio generate {HERE.quote(name)} PROMPT, or a model that was made to chat (often called Instruct or Chat)"
        )


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuse sampling fields that no model takes before one is loaded.

    Raises:
        ConfigError: A field is out of range, or contradicts another.
    """
    from pio.engine.sampling_params import SamplingParams

    SamplingParams.merge(None, None, **fields)


class _Noting:
    """Counts kernels that are compiled; says once, where it takes long, what is going on."""

    def __init__(self, compiled: list[str]) -> None:
        self._compiled = compiled
        self._began: float | None = None
        self._said = False

    def __call__(self, kernel: str) -> None:
        now = time.monotonic()
        self._compiled.append(kernel)
        self._began = now if self._began is None else self._began
        if not self._said and now - self._began > DELAY:
            self._said = True
            note("compiling kernels for this machine (once)")


def named(formats: Mapping[str, str]) -> str:
    """Return how matrices are held in a few words, such as "layers int4, tables int8", or "bfloat16" for all."""
    if len(set(formats.values())) == 1:
        return next(iter(formats.values()))
    return ", ".join(f"{part} {form}" for part, form in formats.items())


def describe(name: str, model: TextModelPlugin) -> None:
    """Log what was loaded."""
    metadata, inner = model.metadata, model.loaded.model
    threads, gpu = inner.device.threads, inner.device.stream is not None
    _log.info("model: %s is %s", name, metadata.path)
    _log.info(
        "plugin: %s runs %s parameters in %s on %s",
        metadata.name,
        count(metadata.parameters),
        named(metadata.formats),
        metadata.device if gpu else f"{threads} thread{'' if threads == 1 else 's'}",
    )
    taken = ", ".join(f"{part} {size(nbytes)}" for part, nbytes in metadata.memory.items())
    if len(metadata.modalities) > 1:
        _log.info("input: %s", ", ".join(metadata.modalities))
    _log.info("memory: %s, for a context of %d tokens", taken, metadata.context_length)
    if model.runtime.prefix_cache_path is not None:
        kept, folder = model.stats(), model.runtime.prefix_cache_path
        _log.info("kept of prompts: %s, segments: %d, in %s", size(kept.disk_bytes), kept.disk_segments, folder)
