"""Who proposes how an answer goes on, so that a step can compute several of its tokens."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Collection
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from pio.engine.sequence import Sequence


class Draft(NamedTuple):
    """Tokens that may come next in an answer.

    Attributes:
        tokens: In their order, int32, each below the vocabulary's size.
        survivals: For each, how likely it is that it and all before it come, 0 to 1, never rising.
    """

    tokens: array[int]
    survivals: Collection[float]


class Drafter(Protocol):
    """Proposes tokens of answers: what is found in texts, what a smaller model writes, or what extra heads say.

    Whatever it proposes, texts stay the same: each token is chosen from the model's own logits, and a proposal only
    decides for how many of them a step computes these. All calls come from the thread that runs the model, between two
    steps. What it keeps of a sequence it keeps under that object, until ``end``.
    """

    @property
    def nbytes(self) -> int:
        """Bytes that it may come to take."""
        ...

    def propose(self, wanted: Collection[tuple[Sequence, int]]) -> Collection[Draft | None]:
        """Return a draft for each of these: an empty one where what it has is too unlikely, None where it has nothing.

        Args:
            wanted: Sequences that are about to decode, with the number of tokens that a draft may have, at least one.
                Of what was drafted before, that came which is in ``tokens`` now.
        """
        ...

    def end(self, sequence: Sequence) -> None:
        """Let go of a sequence that gets no more tokens; it may never have been asked about."""
        ...

    def clear(self) -> None:
        """Let go of all sequences, and of what was learned of their texts."""
        ...
