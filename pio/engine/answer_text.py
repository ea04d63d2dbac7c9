"""The text of one answer as its tokens come: whole characters, told apart by kind, cut at a stop text."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pio.engine.stop_strings import StopStrings

if TYPE_CHECKING:
    from pio.engine.sampling_params import SamplingParams
    from pio.text.reasoning import Kind, Reasoning

Parts: TypeAlias = "list[tuple[Kind, str]]"


class Detokenizer(Protocol):
    """Turns tokens into text as they come, whole characters only."""

    @property
    def skipped(self) -> Collection[int]:
        """Tokens that are left out of the text."""
        ...

    def push(self, token_id: int, /) -> str:
        """Return the text that became certain with this token."""
        ...

    def flush(self) -> str:
        """Return what is left at the end."""
        ...


class AnswerText:
    """Turns tokens into text, splits off the reasoning, and looks for stop texts in the answer alone."""

    def __init__(
        self,
        params: SamplingParams,
        detokenizer: Detokenizer | None,
        token_text: Callable[[int], str] | None,
        reasoning: Reasoning | None,
    ) -> None:
        """Begin an empty text.

        Args:
            params: What to stop at, and whether to keep it.
            detokenizer: How to make text; without it there is none.
            token_text: Text of one token alone, for stop texts that name a token that is left out of the text.
            reasoning: How the answer is told apart from the reasoning before it; None where it is not.
        """
        self._detokenizer = detokenizer
        self._token_text = token_text
        self._splitter = None if reasoning is None else reasoning.splitter()
        self._stops = StopStrings(params.stop_strings, include=params.include_stop)
        # fields of a pydantic model are slow to read, and these are read for every token
        self._include_stop = params.include_stop
        self._stopping = bool(params.stop_strings) and detokenizer is not None
        self._found: dict[Kind, list[str]] = {"text": [], "reasoning": [], "markup": []}

    @property
    def matched(self) -> str | None:
        """The stop text that was found."""
        return self._stops.matched

    @property
    def answer(self) -> str:
        """The text of the answer so far."""
        return "".join(self._found["text"])

    @property
    def reasoning(self) -> str | None:
        """The reasoning so far; None where there is none, or an empty one that ended."""
        inside = self._splitter is not None and self._splitter.inside
        return "".join(self._found["reasoning"]) or ("" if inside else None)

    def answered(self, stopped: bool) -> bool:
        """Return whether a finished text has an answer: not inside the reasoning, nor cut off right behind it."""
        state = "answer" if self._splitter is None else self._splitter.state
        return state == "answer" or (state == "gap" and stopped)

    def push(self, token: int, *, ends: bool, last: bool) -> Parts:
        """Take a token and return what is certain with it.

        Args:
            token: The token.
            ends: Whether it ends the answer, and is left out unless ``include_stop`` keeps it.
            last: Whether no other comes behind it, so that nothing need be held back.

        Returns:
            Pairs of kind and text, at least one; only the text of the first may be empty, and is where all are.
        """
        parts = self._read(token, ends and not self._include_stop)
        if last or self._stops.matched is not None:
            parts += self._rest()
        if len(parts) != 1:
            parts = self._joined(parts)
        for kind, text in parts:
            self._found[kind].append(text)
        return parts

    def _read(self, token: int, hidden: bool) -> Parts:
        detokenizer = self._detokenizer
        if detokenizer is None:
            return []
        if not self._stopping:
            return [] if hidden else self._split(detokenizer.push(token))
        if hidden or token in detokenizer.skipped:
            return self._hide(detokenizer, token)
        return self._search(self._split(detokenizer.push(token)))

    def _split(self, text: str) -> Parts:
        splitter = self._splitter
        return [("text", text)] if splitter is None or splitter.state == "answer" else splitter.push(text)

    def _search(self, parts: Parts) -> Parts:
        """Look for stop texts in the parts of the answer; return what is certain."""
        return [(kind, self._stops.push(text) if kind == "text" else text) for kind, text in parts]

    def _hide(self, detokenizer: Detokenizer, token: int) -> Parts:
        """Look for stop texts in a token that is left out of the text; return what is certain with it."""
        if self._token_text is None or (self._splitter is not None and self._splitter.inside):
            return []
        text, parts = self._token_text(token), list[tuple["Kind", str]]()
        if self._stops.names(text):  # the answer ends here: what was held back comes before this token
            parts = self._settled(detokenizer)
        return [*parts, ("text", self._stops.push(text, hidden=True))]

    def _settled(self, detokenizer: Detokenizer) -> Parts:
        """What was held back before stop texts were looked for, now that no more is to come before them."""
        parts = self._split(detokenizer.flush())
        if self._splitter is not None:
            parts += self._splitter.flush()
        return self._search(parts) if self._stopping else parts

    def _rest(self) -> Parts:
        """What was held back, now that no more is to come; nothing behind a stop text."""
        if self._stops.matched is not None:
            if self._splitter is not None:
                self._splitter.flush()
            return []
        if self._detokenizer is None:
            return []
        return [*self._settled(self._detokenizer), ("text", self._stops.flush())]

    def _joined(self, parts: Parts) -> Parts:
        """Neighbours of a kind as one, without empty ones."""
        joined: Parts = []
        for kind, text in parts:
            if text and joined and joined[-1][0] == kind:
                joined[-1] = kind, joined[-1][1] + text
            elif text:
                joined.append((kind, text))
        inside = self._splitter is not None and self._splitter.inside
        return joined or [("reasoning" if inside else "text", "")]
