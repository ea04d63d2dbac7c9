"""Which plugin runs a model: manifests are found without importing any plugin."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pio.errors import ConfigError, UnsupportedModelError
from pio.plugin.manifest import MANIFEST, PluginManifest

ENTRY_POINTS = "pio.plugins"

_log = logging.getLogger("pio.plugin")


@cache
def manifests() -> dict[str, PluginManifest]:
    """Return the manifests of all installed plugins by name: pio's own, then those of other packages.

    A package adds a plugin with an entry point of the group ``pio.plugins`` that names the folder's package; what
    cannot be used is logged and left out, and ``problems`` has it.
    """
    usable: dict[str, PluginManifest] = {}
    for name, found in _scan().items():
        if isinstance(found, PluginManifest):
            usable[name] = found
        else:
            _log.warning("plugin left out: %s: %s", name, found)
    return usable


def problems() -> dict[str, ConfigError]:
    """Return what is wrong with each installed plugin that cannot be used, by the name of its folder or entry point."""
    return {name: found for name, found in _scan().items() if isinstance(found, ConfigError)}


def _scan() -> dict[str, PluginManifest | ConfigError]:
    """Read every installed plugin's manifest; the first of a name has it."""
    found: dict[str, PluginManifest | ConfigError] = {}
    for name, folder in dict.fromkeys(_installed()):  # one distribution may be found twice
        if isinstance(folder, ConfigError):
            found.setdefault(name, folder)
            continue
        try:
            manifest = PluginManifest.read(folder / MANIFEST)
        except ConfigError as error:
            found.setdefault(name, error)
            continue
        if found.setdefault(manifest.name, manifest) is not manifest:
            found[str(folder)] = ConfigError(f"{folder / MANIFEST}: the name {manifest.name} is taken; choose another")
    return found


def plugin_folders() -> Iterator[Path]:
    """Yield the folders of installed plugins, whatever state their manifests are in."""
    yield from (folder for _, folder in _installed() if isinstance(folder, Path))


def _installed() -> Iterator[tuple[str, Path | ConfigError]]:
    """Yield the name and folder of each plugin, or why it has none."""
    for path in sorted((Path(__file__).parent.parent / "models").glob(f"*/{MANIFEST}")):
        yield path.parent.name, path.parent
    for point in entry_points(group=ENTRY_POINTS):
        try:
            spec = importlib.util.find_spec(point.module)
        except Exception as error:  # a parent package is imported, and may raise anything
            told = f"{type(error).__name__}: {error}"
            yield point.name, ConfigError(f"{point.module} cannot be found: {told}; install its package again")
            continue
        folders = list(map(Path, (spec.submodule_search_locations or ()) if spec else ()))
        if not folders:
            yield point.name, ConfigError(f"{point.module} is no package with a {MANIFEST}; install its package again")
        yield from ((point.name, folder) for folder in folders)


def folder_of(manifest: PluginManifest) -> Path:
    """Return the folder of an installed plugin, which holds more than its code.

    Raises:
        ConfigError: It is not installed, or no longer.
    """
    for folder in plugin_folders():
        with suppress(ConfigError):
            if PluginManifest.read(folder / MANIFEST) == manifest:
                return folder
    raise ConfigError(f"plugin {manifest.name} has no folder any more; install its package again")


def manifest_of(plugin: type) -> PluginManifest:
    """Return the manifest of a plugin's class.

    Raises:
        ConfigError: The class names none, or one that is not installed.
    """
    name = getattr(plugin, "manifest_name", None)
    found = manifests().get(name) if isinstance(name, str) else None
    if found is None:
        raise ConfigError(
            f"{plugin.__module__}:{plugin.__name__}.manifest_name is {name!r}, expected the name in the plugin's own "
            f"{MANIFEST}; installed are {', '.join(manifests())}"
        )
    return found


def choose(config: dict[str, Any], plugin: str | None = None) -> tuple[PluginManifest, bool]:
    """Return the plugin for a config.json, and whether it lists this very model.

    Among the plugins of the architecture the one that lists the model's dimensions wins, then the one whose size is
    nearest.

    Args:
        config: The object in config.json.
        plugin: A plugin's name, which settles the choice.

    Raises:
        ConfigError: There is no plugin of that name.
        UnsupportedModelError: No plugin runs this architecture, or the named one does not.
    """
    installed = manifests()
    model_type = config.get("model_type")
    if plugin is not None:
        if plugin not in installed:
            raise ConfigError(f"plugin={plugin!r} is not installed; installed are {', '.join(installed)}")
        candidates = [installed[plugin]]
    else:
        candidates = list(installed.values())
    fitting = [m for m in candidates if model_type in m.model_types]
    if not fitting:
        known = sorted({t for m in candidates for t in m.model_types})
        raise UnsupportedModelError(
            f"config.json: model_type is {str(model_type)[:80]!r}, {'plugin ' + plugin if plugin else 'pio'} runs "
            f"{', '.join(known)}; choose such a model or install a plugin for this one"
        )
    for manifest in fitting:
        if manifest.lists(config):
            return manifest, True
    return min(fitting, key=lambda m: abs(math.log(_size(config)) - math.log(_size(m.dimensions)))), False


def meant(name: str) -> str | None:
    """Return the repo that somebody means by a plugin's name, or by a repo's without its owner; None for others."""
    for manifest in manifests().values():
        for repo in manifest.checkpoints:
            if name.lower() in (manifest.name, repo.lower(), repo.rpartition("/")[2].lower()) and name != repo:
                return repo
    return None


def _size(dimensions: dict[str, Any]) -> int:
    """A rough measure of a model's size: layers x width squared."""
    width, layers = dimensions.get("hidden_size"), dimensions.get("num_hidden_layers")
    if isinstance(width, int) and isinstance(layers, int) and width > 0 and layers > 0:
        return width * width * layers
    return 1
