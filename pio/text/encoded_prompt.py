"""A prompt as the engine takes it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pio.tensor import Tensor
from pio.text.calling.calls import Calls
from pio.text.reasoning import Reasoning


@dataclass(frozen=True, slots=True)
class PromptEmbeddings:
    """Rows that a model takes for tokens of a prompt in the place of those in its embedding table.

    Attributes:
        first: The first of these tokens, from 0.
        rows: float32 (n, hidden), contiguous, one for each token; not to be written to until the answer is there.
        additions: What is added to the residual stream of these tokens behind the model's first layers: for each of
            them float32 (n, hidden), or nothing at all.
    """

    first: int
    rows: Tensor
    additions: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacedMedium:
    """A picture or a video, and the tokens of a prompt that stand for it.

    Attributes:
        medium: As the model's encoder takes it.
        key: The same for media of which the encoder makes the same.
        places: The first token of each stretch of them; all are as long, and together they are the medium's tokens.
        tokens: Tokens of all stretches.
    """

    medium: Any
    key: bytes
    places: tuple[int, ...]
    tokens: int

    @property
    def end(self) -> int:
        """The token behind the last one that stands for it."""
        return max(self.places) + self.tokens // len(self.places)

    def embeddings(self, rows: Tensor, additions: Sequence[Tensor]) -> list[PromptEmbeddings]:
        """Return what takes the place of these tokens' own embeddings, stretch by stretch."""
        each = self.tokens // len(self.places)
        cuts = [slice(i * each, (i + 1) * each) for i in range(len(self.places))]
        return [
            PromptEmbeddings(first, rows[cut], tuple(level[cut] for level in additions))
            for first, cut in zip(self.places, cuts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class PromptPositions:
    """Where tokens stand for rotary embedding, where that is not their number in the prompt.

    Attributes:
        axes: For each axis the positions of the prompt's tokens.
        shift: How far positions behind the prompt are ahead of a token's number; mostly below zero, for a picture has
            more tokens than it is high or wide.
    """

    axes: tuple[array[int], ...]
    shift: int

    def of(self, first: int, count: int) -> list[array[int]]:
        """Return the positions of tokens of prompt and answer on each axis."""
        known = len(self.axes[0])
        behind = array("i", range(max(first, known) + self.shift, first + count + self.shift))
        return [axis[first : first + count] + behind for axis in self.axes]


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """What became of text, token ids, messages or a gap.

    Attributes:
        token_ids: The tokens.
        reasoning: How the answer is told apart from the reasoning before it; None where it is not, as for plain text.
        embeddings: Stretches of the prompt whose embeddings come from elsewhere, such as a soft prompt. Their token ids
            are of no matter to the model; penalties count them.
        media: Pictures and videos, in the order of their tokens.
        positions: Of its tokens, where they are not their numbers.
        calls: How calls of tools are found in the answer; None where they are text.
    """

    token_ids: Sequence[int]
    reasoning: Reasoning | None = None
    embeddings: Sequence[PromptEmbeddings] = ()
    media: Sequence[PlacedMedium] = ()
    positions: PromptPositions | None = None
    calls: Calls | None = None

    @property
    def may_think(self) -> bool:
        """Whether the model may think before it answers."""
        return self.reasoning is not None and self.reasoning.possible
