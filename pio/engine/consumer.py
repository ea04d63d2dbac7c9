"""The logits of a whole prompt: what becomes of a sequence that is no answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pio.engine import request_log
from pio.engine.request import Request
from pio.tensor import Tensor

if TYPE_CHECKING:
    from pio.engine.sequence import Sequence


class PromptLogits:
    """Copies the logits of every position of a prompt into one tensor."""

    def __init__(self, request: Request[Tensor], out: Tensor) -> None:
        self._request = request
        self._out = out
        self._complete = False

    @property
    def request(self) -> Request[Tensor]:
        """Who asked for them."""
        return self._request

    @property
    def index(self) -> int:
        """Of one answer, the first."""
        return 0

    @property
    def dead(self) -> bool:
        """Whether nobody wants the result any more."""
        return self._request.dead

    @property
    def expires(self) -> float:
        """Never."""
        return math.inf

    @property
    def seconds(self) -> float:
        """All of them."""
        return math.inf

    def expire(self, sequence: Sequence) -> None:
        """Do nothing: it never does."""

    def room(self, sequence: Sequence) -> int:
        """Return how many tokens it takes: none."""
        return 0

    def begin(self) -> None:
        """Note that the model starts on the sequence; nothing to note here."""

    def choose(self, sequence: Sequence, row: int) -> None:
        """Choose nothing: the logits are wanted."""

    def choose_again(self, sequence: Sequence, row: int) -> None:
        """Choose nothing."""

    def take(self, sequence: Sequence, logits: Tensor, row: int) -> bool:
        """Copy this step's rows out; finished with the prompt's last one."""
        first, count = sequence.num_computed, sequence.rows
        self._out[first : first + count].copy_(logits[row : row + count])
        self._complete = first + count == len(sequence.tokens)
        return self._complete

    def finish(self) -> None:
        """Hand the logits over, if they are complete."""
        if self._complete:
            request_log.scored(self, self._out.shape[0])
            self._request.complete(0, self._out)

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        self._request.fail(error)
