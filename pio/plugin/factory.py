"""A plugin of a manifest: made by the factory that it names, and held against what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from pio.errors import ConfigError, PioError
from pio.plugin.earlier import changed, place
from pio.plugin.manifest import PluginManifest, import_object

if TYPE_CHECKING:
    from pio.plugin.interface import TextModelPlugin


def make(manifest: PluginManifest, **options: Any) -> TextModelPlugin:
    """Return the plugin that a manifest's factory makes.

    Args:
        manifest: Of the plugin.
        **options: As ``TextModelPlugin.initialize`` takes them.

    Raises:
        ConfigError: There is no such factory, it fails, or makes something else than the manifest says.
    """
    from pio.plugin.interface import TextModelPlugin  # here: nothing heavy before there is a model to run

    def fail(problem: str, remedy: str = "correct it") -> NoReturn:
        raise ConfigError(f"plugin {manifest.name}: {problem}; {remedy}, pio verify {manifest.name} says more")

    factory = import_object(manifest.factory)
    try:
        made: Any = factory(**options)
    except PioError:
        raise
    except (TypeError, AttributeError, ImportError, NameError, LookupError, ValueError) as error:
        at = place(error, manifest.factory)
        where = "" if at is None else f" at {at}"
        fail(f"{manifest.factory} raised {type(error).__name__}{where}: {error}", changed(error) or "correct it")
    if not isinstance(made, TextModelPlugin):
        fail(f"{manifest.factory} made {made!r:.80}, expected a pio.TextModelPlugin")
    if getattr(made, "manifest_name", None) != manifest.name:
        fail(f"manifest_name of {manifest.plugin} is {getattr(made, 'manifest_name', None)!r}, expected its name")
    if not hasattr(getattr(made, "config_class", None), "from_checkpoint"):
        fail(f"config_class of {manifest.plugin} is no subclass of pio.config.decoder.DecoderConfig")
    return made
