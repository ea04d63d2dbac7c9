"""What becomes of a sequence's logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pio.engine.request import Request
from pio.tensor import Tensor

if TYPE_CHECKING:
    from pio.engine.sequence import Sequence
    from pio.ops.sampling import Choice


class Consumer(Protocol):
    """Takes logits until it has what was asked for."""

    @property
    def scores_prompt(self) -> bool:
        """Whether it wants the logits of all positions, not of the last one only."""
        ...

    @property
    def dead(self) -> bool:
        """Whether nobody wants its result any more."""
        ...

    def begin(self) -> None:
        """Note that the model starts on the sequence."""
        ...

    def choose(self, sequence: Sequence, row: int) -> Choice | None:
        """Return how the token behind a row of logits is to be chosen; None where the logits themselves are wanted."""
        ...

    def take(self, sequence: Sequence, logits: Tensor, row: int) -> bool:
        """Use what the step made, the token that was chosen or the logits; return whether the sequence is finished.

        Args:
            sequence: The sequence, ``num_computed`` not yet counting this step.
            logits: float32 (rows, vocabulary), valid during the call.
            row: Its first row among them.
        """
        ...

    def fail(self, error: BaseException) -> None:
        """End its request with an error."""
        ...


class PromptLogits:
    """Copies the logits of every position of a prompt into one tensor."""

    scores_prompt = True

    def __init__(self, request: Request[Tensor], out: Tensor) -> None:
        self._request = request
        self._out = out

    @property
    def dead(self) -> bool:
        """Whether nobody wants the result any more."""
        return self._request.dead

    def begin(self) -> None:
        """Note that the model starts on the sequence; nothing to note here."""

    def choose(self, sequence: Sequence, row: int) -> None:
        """Choose nothing: the logits are wanted."""

    def take(self, sequence: Sequence, logits: Tensor, row: int) -> bool:
        """Copy this step's rows out; finished with the prompt's last one."""
        first, count = sequence.num_computed, sequence.scheduled
        self._out[first : first + count].copy_(logits[row : row + count])
        if first + count < len(sequence.tokens):
            return False
        self._request.complete(0, self._out)
        return True

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        self._request.fail(error)
