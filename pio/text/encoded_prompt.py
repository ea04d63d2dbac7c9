"""A prompt as the engine takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pio.tensor import Tensor
from pio.text.reasoning import Reasoning


@dataclass(frozen=True, slots=True)
class PromptEmbeddings:
    """Rows that a model takes for tokens of a prompt in the place of those in its embedding table.

    Attributes:
        first: The first of these tokens, from 0.
        rows: float32 (n, hidden), contiguous, one for each token; not to be written to until the answer is there.
    """

    first: int
    rows: Tensor


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """What became of text, token ids, messages or a gap.

    Attributes:
        token_ids: The tokens.
        reasoning: How the answer is told apart from the reasoning before it; None where it is not, as for plain text.
        embeddings: Stretches of the prompt whose embeddings come from elsewhere, such as a soft prompt. Their token ids
            are of no matter to the model; penalties count them.
    """

    token_ids: Sequence[int]
    reasoning: Reasoning | None = None
    embeddings: Sequence[PromptEmbeddings] = ()

    @property
    def may_think(self) -> bool:
        """Whether the model may think before it answers."""
        return self.reasoning is not None and self.reasoning.possible
