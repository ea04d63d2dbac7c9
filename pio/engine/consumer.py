"""The logits of a whole prompt: what becomes of a sequence that is no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pio.engine.request import Request
from pio.tensor import Tensor

if TYPE_CHECKING:
    from pio.engine.sequence import Sequence


class PromptLogits:
    """Copies the logits of every position of a prompt into one tensor."""

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
        first, count = sequence.num_computed, sequence.rows
        self._out[first : first + count].copy_(logits[row : row + count])
        if first + count < len(sequence.tokens):
            return False
        self._request.complete(0, self._out)
        return True

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        self._request.fail(error)
