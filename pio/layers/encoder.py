"""What makes embeddings of pictures and videos, as a decoder offers it to the engine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol, TypeAlias

from pio.tensor import Tensor

Embeddings: TypeAlias = tuple[Tensor, tuple[Tensor, ...]]
"""Rows float32 (n, hidden) for a medium's tokens, and likewise what is added behind each of the first layers."""


class Encoder(Protocol):
    """A tower: what stands between pixels and a decoder.

    Attributes:
        nbytes: Bytes of its weights.
        least_bytes: What encoding the smallest picture takes, its embeddings included.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        ...

    @property
    def least_bytes(self) -> int:
        """What encoding the smallest picture takes, its embeddings included."""
        ...

    def encode(self, media: Sequence[Any], /) -> Generator[None, None, list[Embeddings]]:
        """Encode media side by side, a short piece of the work between any two yields.

        It computes in what decoders compute in, so no step of the decoder may run meanwhile but between pieces.

        Raises:
            OutOfMemoryError: The memory limit or the machine cannot give what that takes.
        """
        ...

    def working_bytes(self, media: Sequence[Any], /) -> int:
        """Return the bytes that encoding media together takes until it is done."""
        ...

    def embeddings_bytes(self, medium: Any, /) -> int:
        """Return the bytes of what encoding a medium gives."""
        ...

    def tokens(self, medium: Any, /) -> int:
        """Return how many rows of embeddings encoding a medium gives."""
        ...

    def operations(self, media: Sequence[Any], /) -> float:
        """Return the operations of encoding media: a product and a sum are two."""
        ...

    def warm_up(self) -> None:
        """Run each kind of block once, so that no kernel is missing when the first picture comes."""
        ...
