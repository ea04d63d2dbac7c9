"""Keeps one answer to its format, from where its reasoning ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection

    from pio.ops.token_mask import TokenMask
    from pio.structured.constraint import Constraint
    from pio.structured.response_format import ResponseFormat
    from pio.text.reasoning import Reasoning, State


@dataclass(frozen=True, slots=True)
class KnownTokens:
    """Tokens that mean something around an answer.

    Attributes:
        ends: End an answer.
        opening: Begins the reasoning; None where no single token does.
        line_ends: Are nothing but line ends, which models write between reasoning and answer.
        thinking: Which may come while the model thinks: all but those that end an answer. Shared by all answers, and
            never changed.
    """

    ends: frozenset[int]
    opening: int | None
    line_ends: frozenset[int]
    thinking: TokenMask


class Guide:
    """Says which tokens an answer may go on with; the format begins behind the reasoning.

    While a model thinks, any token may come but those that end the answer, which has not begun. Behind the reasoning
    one token of line ends may come first. A model that may think begins to do so with the one token that its
    tokenizer has for that, or it answers at once.

    Attributes:
        response_format: What the answer is held to.
        ends: Tokens that end the answer.
        complete: Whether it has the shape that was asked for and has ended, by its shape or by an end token. Nothing
            is said of what would come then.
    """

    def __init__(
        self, response_format: ResponseFormat, constraint: Constraint, known: KnownTokens, reasoning: Reasoning | None
    ) -> None:
        """Stand before the first token."""
        self.response_format = response_format
        self.complete = False
        self.ends = known.ends
        self._constraint = constraint
        self._known = known
        self._phase: Literal["start", "reasoning", "gap", "answer"] = "answer"
        if reasoning is not None and reasoning.inside:
            self._phase = "reasoning"
        elif reasoning is not None and reasoning.expected and known.opening is not None:
            self._phase = "start"
        self._line_end_taken = False
        self._mask: TokenMask | None = None

    @property
    def answering(self) -> bool:
        """Whether the answer has begun."""
        return self._phase == "answer"

    @property
    def mask(self) -> TokenMask:
        """Which tokens may come next; found where it is asked for, and good until the next ``follow``.

        Raises:
            PioError: The grammar is too complex at this place.
        """
        if self._mask is None:
            self._mask = self._look()
        return self._mask

    def allows(self, token: int) -> bool:
        """Return whether a token may come next, for a small part of the work of the mask.

        Raises:
            PioError: The grammar is too complex at this place.
        """
        if self._phase == "reasoning":
            return token not in self.ends
        return token in self._also() or self._constraint.allows(token)

    def take(self, token: int) -> None:
        """Go on behind a token.

        Raises:
            PioError: The grammar is too complex at this place.
        """
        if self._phase == "start" and token == self._known.opening:
            self._phase = "reasoning"
        elif self._phase == "gap" and token in self._known.line_ends and not self._line_end_taken:
            self._line_end_taken = True
        elif self._phase != "reasoning":
            self._phase = "answer"
            self._constraint.take(token)
            self.complete = self._constraint.complete

    def follow(self, state: State, text: str) -> None:
        """Note what became of the last token's text.

        Args:
            state: Where the text stands now.
            text: All of the answer so far; looked at only where the last token ended the reasoning, and brought it.

        Raises:
            PioError: The reasoning ended within a token that brings text that the grammar does not allow.
        """
        if self._phase == "reasoning" and state in ("gap", "answer"):
            self._phase = "gap"
            if state == "answer":
                self._phase = "answer"
                self._constraint.take_text(text)
        self._mask = None

    def _look(self) -> TokenMask:
        if self._phase == "reasoning":
            return self._known.thinking
        mask = self._constraint.look()
        for token in self._also():
            mask.allow(token)
        return mask

    def _also(self) -> Collection[int]:
        """Tokens before the answer that may come in place of its first one."""
        if self._phase == "start" and self._known.opening is not None:
            return (self._known.opening,)
        return self._known.line_ends if self._phase == "gap" and not self._line_end_taken else ()
