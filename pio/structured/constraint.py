"""One answer on its way through a grammar: which tokens may come next, and whether it is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pio.errors import PioError
from pio.loading.model_file import shown
from pio.ops.token_mask import TokenMask
from pio.text.rust_calls import guarded

if TYPE_CHECKING:
    import llguidance

_FAILED = "response_format: the grammar cannot be followed any further; give a simpler one"


class Constraint:
    """Follows the tokens of one answer.

    Attributes:
        mask: Which tokens may come next, as ``look`` found; end tokens where the answer may end.
    """

    def __init__(self, matcher: llguidance.LLMatcher, tokenizer: llguidance.LLTokenizer, vocab_size: int) -> None:
        """Begin an answer.

        Args:
            matcher: At its beginning; nobody else uses it.
            tokenizer: Of the same grammar.
            vocab_size: Length of a row of logits.
        """
        self._matcher = matcher
        self._tokenizer = tokenizer
        self.mask = TokenMask(vocab_size)
        self._nbytes = 4 * len(self.mask.words)

    @property
    def complete(self) -> bool:
        """Whether the answer has the shape and nothing but its end can follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def allows(self, token: int) -> bool:
        """Return whether a token may come next, for a small part of the work of the mask.

        Where a text must come, any token that begins it may; the mask has only the one that the tokenizer would take.

        Raises:
            PioError: The grammar is too complex at this place.
        """
        allowed = guarded(lambda: self._matcher.validate_tokens([token]), PioError, _FAILED)
        self._check()
        return allowed == 1

    def look(self) -> TokenMask:
        """Find out which tokens may come next, and return the mask.

        Raises:
            PioError: The grammar is too complex at this place.
        """
        guarded(lambda: self._matcher.unsafe_compute_mask_ptr(self.mask.address, self._nbytes), PioError, _FAILED)
        self._check()
        return self.mask

    def take(self, token: int) -> None:
        """Go on behind a token.

        Raises:
            PioError: The grammar does not allow it, or is too complex at this place.
        """
        guarded(lambda: self._matcher.consume_token(token), PioError, _FAILED)
        self._check()

    def take_text(self, text: str) -> None:
        """Go on behind a text, whatever tokens it came in.

        Raises:
            PioError: The grammar does not allow it.
        """
        for token in guarded(lambda: self._tokenizer.greedy_tokenize(text), PioError, _FAILED):
            self.take(token)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise PioError(f"{_FAILED} ({shown(self._matcher.get_error().splitlines()[0], 200)})")
