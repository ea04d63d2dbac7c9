"""What a plugin offers that turns pictures and videos into what its model takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from pio.plugin.media_parts import MediaSource
from pio.text.encoded_prompt import EncodedPrompt


class MediaProcessor(Protocol):
    """Between what callers give and what a model's tower takes.

    Attributes:
        modalities: What it takes beside text: "image", "video".
        marks: Tokens that stand for what is seen, or around it. Only a template writes them: in messages they are text.
        mark_ids: Their ids, of which no answer holds one; first the one that stands for a picture.
    """

    @property
    def modalities(self) -> Collection[str]:
        """What it takes beside text."""
        ...

    @property
    def marks(self) -> Collection[str]:
        """Tokens that stand for what is seen, or around it."""
        ...

    @property
    def mark_ids(self) -> tuple[int, ...]:
        """Their ids."""
        ...

    def prepare(self, source: MediaSource, /) -> Any:
        """Read a picture or a video and bring it to the size in which the model sees it.

        What it has returned before is taken as it is, so that a conversation reads each picture once.

        Raises:
            MediaError: It cannot be read.
            ConfigError: It is of no known kind.
        """
        ...

    def place(self, ids: Sequence[int], media: Sequence[Any], /) -> EncodedPrompt:
        """Return a prompt with as many tokens for each medium as it has, in the place of its mark.

        Args:
            ids: Token ids with one mark for each medium, in their order.
            media: As ``prepare`` returned them.

        Raises:
            ConfigError: There are more or fewer marks.
        """
        ...
