"""A prompt as the engine takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pio.text.reasoning import Reasoning


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """What became of text, token ids, messages or a gap.

    Attributes:
        token_ids: The tokens.
        reasoning: How the answer is told apart from the reasoning before it; None where it is not, as for plain text.
    """

    token_ids: Sequence[int]
    reasoning: Reasoning | None = None

    @property
    def may_think(self) -> bool:
        """Whether the model may think before it answers."""
        return self.reasoning is not None and self.reasoning.possible
