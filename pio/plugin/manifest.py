"""What a plugin says of itself, in a file that is read without importing its code."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Self, cast

from pydantic import ConfigDict, Field, ValidationError

from pio.config.described_fields import DescribedFields
from pio.errors import ConfigError, PioError
from pio.plugin.earlier import MISFITS, place, remedy
from pio.shelter import import_whole

MANIFEST = "plugin_manifest.json"
AREAS = ("config", "model", "attention", "mlp", "norm", "rotary_embedding", "kv_cache", "decoder")


class PluginManifest(DescribedFields, frozen=True):
    """The content of ``plugin_manifest.json``."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the plugin, equal to its folder's."""

    version: str
    """Version of the plugin."""

    description: str
    """One sentence."""

    factory: str
    """``module:function`` that makes the plugin, ``create_<name>_plugin``."""

    plugin: str
    """``module:class`` of the plugin."""

    model_types: tuple[str, ...] = Field(min_length=1)
    """Values of ``model_type`` in config.json that the plugin runs."""

    checkpoints: tuple[str, ...]
    """Repos that it was made for."""

    dimensions: dict[str, int]
    """Fields of config.json that tell those checkpoints from others of the same architecture."""

    parameters: int = Field(gt=0)
    """Number of weights of those checkpoints."""

    memory_bytes: int = Field(gt=0)
    """What those checkpoints need with the default options: weights, cache and buffers."""

    modalities: tuple[str, ...]
    """What goes in: text, image."""

    capabilities: tuple[str, ...] = ()
    """What the model was trained for: chat, reasoning, tools, code, fill_in_the_middle."""

    components: dict[str, str]
    """``module:name`` of the code for each area of a model."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest.

        Raises:
            ConfigError: It is not a manifest; the message names the file and the field.
        """
        try:
            return cls.model_validate(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                problem = f"{'.'.join(str(p) for p in first['loc']) or 'the file'}: {first['msg']}"
            else:
                problem = str(error)
            raise ConfigError(f"{path}: {problem}; correct the plugin's manifest") from None

    def lists(self, config: dict[str, Any]) -> bool:
        """Return whether a config.json is that of one of the plugin's own checkpoints.

        A model for text and pictures has the dimensions of its decoder in ``text_config``.
        """
        text = config.get("text_config")
        sizes = {**cast("dict[str, Any]", text), **config} if isinstance(text, dict) else config
        return all(sizes.get(name) == value for name, value in self.dimensions.items())


def import_object(path: str) -> Any:
    """Return what ``module:name`` names.

    Raises:
        ConfigError: There is no such module or name, or the module does not run; the message names the line.
    """
    module, _, name = path.partition(":")
    try:
        # not another package's module: it may need one that this very thread is importing
        import_whole(module if module.startswith("pio.") else "pio.plugin")
        return getattr(importlib.import_module(module), name)
    except (PioError, MemoryError):
        raise
    except Exception as error:  # whatever a stranger's module raises
        told, at = str(error).partition("\n")[0], place(error, module)
        where = "" if at is None else f"{at}: "
        kind = "" if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: "
        fits = f"correct it; {remedy(error)}" if isinstance(error, MISFITS) else "correct it"
        raise ConfigError(f"plugin manifest: {path!r} cannot be imported: {where}{kind}{told}; {fits}") from error
