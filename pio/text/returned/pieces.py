"""A prompt in pieces: what a chat template wrote, and between it the tokens of answers that come back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from pio.text.returned.answers import ReturnedAnswer
from pio.text.returned.controls import check_controls
from pio.text.returned.place import Unplaced, place
from pio.text.returned.turns import Turn
from pio.text.tokenizer import Tokenizer

Piece: TypeAlias = str | list[int]
_log = logging.getLogger("pio.text")


@dataclass(frozen=True)
class Writer:
    """How a prompt's text becomes tokens.

    Attributes:
        tokenizer: That makes them.
        encode: Makes them of a stretch of what the template wrote.
        plain: Takes away what marks control tokens in it that are to stay letters.
        literal: Whether control tokens in messages are to.
    """

    tokenizer: Tokenizer
    encode: Callable[[str], list[int]]
    plain: Callable[[str], str]
    literal: bool

    def pieces(self, prompt: str, answers: Iterable[tuple[ReturnedAnswer, Turn | None]]) -> list[Piece]:
        """Return a prompt with tokens in the place of the answers that they were.

        Where an answer's tokens cannot stand, its text stays, and a line at the level DEBUG says why.

        Args:
            prompt: What a template wrote; more may stand behind it.
            answers: Those with tokens, in their order, and where their turns stand.
        """
        found: list[Piece] = []
        done = 0
        for answer, turn in answers:
            try:
                begin, ids, end = self._placed(prompt, answer, turn)
            except Unplaced as why:
                _log.debug(
                    "messages[%d]: its text is encoded anew, without its %d token_ids: %s",
                    answer.index,
                    len(answer.spans.ids),
                    why,
                )
                continue
            _log.debug("messages[%d]: %d of its %d token_ids stand", answer.index, len(ids), len(answer.spans.ids))
            found += [prompt[done:begin], ids]
            done = end
        return [*found, prompt[done:]]

    def joined(self, pieces: Iterable[Piece]) -> list[int]:
        """Return the tokens of a prompt in pieces."""
        return [token for piece in pieces for token in (self.encode(piece) if isinstance(piece, str) else piece)]

    def _placed(self, prompt: str, answer: ReturnedAnswer, turn: Turn | None) -> tuple[int, list[int], int]:
        """Where an answer's tokens begin, which stand there, and where they end."""
        if not self.tokenizer.joins:
            raise Unplaced("the tokenizer puts a space where a text begins, or takes one away")
        if turn is None:
            raise Unplaced("what the chat template writes of one message depends on what is in another one")
        written, before = prompt[turn.begin : turn.end], prompt[turn.before : turn.begin]
        plain, plain_before = self.plain(written), self.plain(before)
        at = place(answer, plain_before, plain)
        same = written.startswith(plain[: at.begin]) if at.begin >= 0 else before.endswith(plain_before[at.begin :])
        if not same:
            raise Unplaced("control tokens that are to stay text stand before it")
        begin = turn.begin + at.begin
        end = turn.end + at.end
        if plain[len(plain) + at.end :] != prompt[end : turn.end]:
            raise Unplaced("control tokens that are to stay text stand behind it")
        encoded = self.encode(prompt[begin:end])
        check_controls(answer, at.first, encoded, self.tokenizer, literal=self.literal)
        return begin, answer.spans.ids[at.first :], end
