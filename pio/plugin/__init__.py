"""A model as programs see it: the interface of its plugin, and how a plugin is found, loaded and called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pio.shelter import import_whole

if TYPE_CHECKING:
    from pio.plugin.interface import TextModelPlugin

__all__ = ["TextModelPlugin"]


def __getattr__(name: str) -> Any:
    # when first used: finding a plugin by its manifest needs none of what running it takes
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_whole("pio.plugin.interface"), name)
    return value
