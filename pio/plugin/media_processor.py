"""What a plugin offers that turns pictures and videos into what its model takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from pio.config.runtime import RuntimeConfig
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

    def place(self, ids: Sequence[int], sources: Sequence[MediaSource], most: int, /) -> EncodedPrompt:
        """Read what is to be seen, and return a prompt with as many tokens for it as it has, in the place of its mark.

        Args:
            ids: Token ids with one mark for each picture and each video, in their order.
            sources: Pictures and videos as they were given, or as ``prepare`` returned them.
            most: Tokens that the prompt may have.

        Raises:
            ConfigError: There are more or fewer marks, or a source is of no known kind.
            MediaError: One cannot be read.
            CapacityError: The prompt becomes longer; what comes behind is not read.
        """
        ...

    def prepare(self, source: MediaSource, /) -> Any:
        """Read a picture or a video and bring it to the size in which the model sees it; errors as in ``place``."""
        ...

    def updated(self, runtime: RuntimeConfig, /) -> MediaProcessor:
        """Return a processor of the same folder, which is not read again, for other options."""
        ...
