"""A model as programs see it: the interface of its plugin, and how a plugin is found, loaded and called.

What programs call:
    interface: ``TextModelPlugin``, with all that does not depend on the model.
    lifecycle: Its half that loads a model, changes its options and gives it back.
    prompts: From texts and conversations to tokens.
    metadata: What a loaded model is, in one record.
    loader: ``pio.load``, from a path or a name to a model that is ready.
    quantizer: ``pio.quantize``, from a folder to one whose matrices are packed.

How a plugin is found:
    manifest: What a plugin says of itself, in a file that is read without its code.
    registry: Which plugins there are, and which one runs a model.
    factory: From a manifest to the plugin that it describes.
    earlier: What plugins are told that were written for an earlier pio.

How a model comes into memory:
    one_load: Lets one load of a model run at a time.
    loaded_model: Everything that a load makes and cleaning up gives back.
    assembly: How weights become a model as the runtime options want it.
    answer_defaults: What the files of a folder say of answers.
"""

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
