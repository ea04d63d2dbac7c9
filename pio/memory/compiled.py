"""The compiled operations that tensors have as methods: ``pio.ops``, which is written with tensors and so lies above.

The package says where they are when it is imported, and they are loaded when one is first called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast


class Operations(Protocol):
    """The functions of ``pio.ops`` that tensors call; what they take is described there."""

    def copy(self, to: Any, source: Any) -> object:
        """Copy elements of any type and strides."""
        ...

    def matmul(self, x: Any, y: Any) -> Any:
        """Multiply matrices."""
        ...

    def softmax(self, x: Any) -> Any:
        """Normalise exponentials along the last axis."""
        ...

    def gelu(self, x: Any) -> Any:
        """Apply the activation."""
        ...


_load: list[Callable[[], object]] = []


def provide(load: Callable[[], object]) -> None:
    """Say how the module of operations is loaded."""
    _load[:] = [load]


def operations() -> Operations:
    """Return the operations, loaded when first asked for."""
    return cast("Operations", _load[0]())
