"""Ends the reasoning of an answer after so many tokens, so that the answer begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from pio.errors import ConfigError
from pio.ops.bans import Bans
from pio.ops.penalties import Penalties
from pio.ops.sampling import Choice
from pio.ops.token_mask import TokenMask
from pio.text.reasoning import Reasoning


class ThinkingLimits:
    """Makes the limits of one model's answers; for any number of threads at once."""

    def __init__(self, closing: Callable[[], Sequence[int]], vocab_size: int) -> None:
        """Note what is needed; nothing is made before somebody asks for a limit.

        Args:
            closing: Tokens of the tag that ends reasoning, and of what stands behind it.
            vocab_size: Length of a row of logits.
        """
        self._closing = closing
        self._vocab_size = vocab_size

    @cached_property
    def _masks(self) -> tuple[TokenMask, ...]:
        """One for each of the closing tokens, that lets it alone come; all answers share them."""
        return tuple(TokenMask.only(token, self._vocab_size) for token in self._closing())

    def limit(self, most: int, reasoning: Reasoning | None, logprobs: int | None) -> ThinkingLimit:
        """Return the limit of one answer.

        Args:
            most: Tokens of reasoning, at most.
            reasoning: How the answer is told apart from the reasoning before it.
            logprobs: As ``Choice`` takes it.

        Raises:
            ConfigError: There is no reasoning in an answer to this prompt.
        """
        if reasoning is None or not reasoning.possible:
            raise ConfigError(
                f"max_thinking_tokens={most}: the answer to this prompt has no reasoning before it (a plain text, a "
                "model that does not think, or enable_thinking=False); leave it out"
            )
        return ThinkingLimit(most, self._masks, self._vocab_size, inside=reasoning.inside, logprobs=logprobs)


class ThinkingLimit:
    """Counts the tokens of one answer's reasoning, and closes it when there are enough.

    Attributes:
        choice: How to choose the next token while the reasoning is being closed; None while the model has its way.
    """

    def __init__(
        self, most: int, masks: Sequence[TokenMask], vocab_size: int, *, inside: bool, logprobs: int | None
    ) -> None:
        """Stand before the first token.

        Args:
            most: Tokens of reasoning, at most; those of its tags are not counted.
            masks: Of the tokens that close it, one for each.
            vocab_size: Length of a row of logits.
            inside: Whether the prompt ends inside the reasoning.
            logprobs: As ``Choice`` takes it.
        """
        self.choice: Choice | None = None
        self._left = most
        self._inside = inside
        self._masks = iter(masks)
        self._bans = Bans((), vocab_size, guided=True)  # whose mask is set here
        self._closing = Choice(penalties=Penalties((), 0, vocab_size, bans=self._bans), logprobs=logprobs)
        if inside and most == 0:
            self._close()

    def follow(self, inside: bool) -> None:
        """Go on behind a token.

        Args:
            inside: Whether the text, tokens held back included, stands within the reasoning now.
        """
        if self.choice is not None:
            self._close()
        elif inside:
            self._left -= self._inside  # the token of the tag that opens the reasoning is not of it
            if self._left <= 0:
                self._close()
        self._inside = inside

    def _close(self) -> None:
        """Let nothing but the next closing token come, or everything where there is none left."""
        mask = next(self._masks, None)
        self._bans.mask = mask
        self.choice = None if mask is None else self._closing
