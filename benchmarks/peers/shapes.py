"""Names and shapes of a checkpoint's tensors: what pio's plugin takes when it is built."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pio.dtypes import bfloat16
from pio.memory.storage import Storage
from pio.plugin import TextModelPlugin, registry
from pio.plugin.assembly import outline
from pio.plugin.manifest import import_object
from pio.tensor import Tensor, row_major


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by name; experts of a layer come in their order.

    Raises:
        PioError: No plugin knows such a config, or it contradicts itself.
    """
    manifest, _ = registry.choose(config, None)
    plugin: TextModelPlugin = import_object(manifest.plugin)()
    asked = _Asked()
    found = outline(plugin.build_model, plugin.config_class.from_checkpoint(config), asked)
    return asked.shapes | {name: shape for name, (shape, _) in found.matrices.items()}


def is_mixture(names: dict[str, tuple[int, ...]]) -> bool:
    """Return whether a token reads only some of the weights."""
    return any(".experts." in name for name in names)


class _Asked:
    """Weights that are there whatever is asked for, and note what that was; their memory is never touched."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def __contains__(self, name: object) -> bool:
        return True

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        self.shapes[name] = shape
        storage = Storage.allocate(bfloat16.itemsize * math.prod(shape))
        return Tensor(storage, storage.address, bfloat16, shape, row_major(shape))

    def same(self, one: str, other: str) -> bool:
        return True

    def ignore(self, which: Callable[[str], bool], why: str) -> None:
        pass
