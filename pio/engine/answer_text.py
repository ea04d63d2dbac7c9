"""The text of one answer as its tokens come: whole characters, told apart by kind, cut at a stop text."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pio.engine.stop_strings import StopStrings

if TYPE_CHECKING:
    from pio.engine.sampling_params import SamplingParams
    from pio.text.calling.calls import Calls
    from pio.text.calling.splitter import CallSplitter, Part
    from pio.text.calling.tool_call import ToolCall
    from pio.text.reasoning import Kind, Reasoning, State

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
    """Turns tokens into text, splits off the reasoning, and looks for stop texts and calls in the answer alone.

    Attributes:
        stops: Finds the stop texts.
        includes_stop: Whether what ended it is kept.
        calls: Those that are complete.
        calling: How they are found; None where they are text.
    """

    def __init__(
        self,
        params: SamplingParams,
        detokenizer: Detokenizer | None,
        token_text: Callable[[int], str] | None,
        reasoning: Reasoning | None,
        calls: Calls | None = None,
    ) -> None:
        """Begin an empty text.

        Args:
            params: What to stop at, and whether to keep it.
            detokenizer: How to make text; without it there is none.
            token_text: Text of one token alone, for stop texts that name a token that is left out of the text.
            reasoning: How the answer is told apart from the reasoning before it; None where it is not.
            calls: How the calls in it are found; None where they are text.
        """
        self._detokenizer = detokenizer
        self._token_text = token_text
        self._splitter = None if reasoning is None else reasoning.splitter()
        self.stops = StopStrings(params.stop_strings, include=params.include_stop)
        # fields of a pydantic model are slow to read, and these are read for every token
        self.includes_stop = params.include_stop
        self._stopping = bool(params.stop_strings) and detokenizer is not None
        self._found: dict[Kind, list[str]] = {"text": [], "reasoning": [], "markup": [], "tool_call": []}
        self.calling = calls
        self._calls = None if calls is None else calls.splitter()
        self._begun = "" if calls is None else calls.begun
        self.calls: list[ToolCall] = []

    @property
    def answer(self) -> str:
        """The text of the answer so far."""
        return "".join(self._found["text"])

    @property
    def begun(self) -> str:
        """The text of the answer so far, with what is held back because it may become a stop text."""
        return self.answer + self.stops.held

    @property
    def reasoning(self) -> str | None:
        """The reasoning so far; None where there is none, or an empty one that ended."""
        return "".join(self._found["reasoning"]) or ("" if self.thinking else None)

    def answered(self, stopped: bool) -> bool:
        """Return whether a finished text has an answer: not inside the reasoning, nor cut off right behind it."""
        state = self.state
        return state == "answer" or (state == "gap" and stopped)

    @property
    def state(self) -> State:
        """Where the text ends, as far as that is certain."""
        return "answer" if self._splitter is None else self._splitter.state

    @property
    def thinking(self) -> bool:
        """Whether the text so far ends inside the reasoning."""
        return self._splitter is not None and self._splitter.inside

    def begin_answer(self) -> None:
        """Take all that comes from here on for the answer, whatever it looks like."""
        if self._splitter is not None:
            self._splitter.state = "answer"

    def push(self, token: int, *, ends: bool, last: bool) -> list[Part]:
        """Take a token and return what is certain with it.

        Args:
            token: The token.
            ends: Whether it ends the answer, and is left out unless ``include_stop`` keeps it.
            last: Whether no other comes behind it, so that nothing need be held back.

        Returns:
            Kinds, texts and the calls that are complete with them, at least one; texts may be empty where the kind says
            no more than where the answer stands, and with a call.
        """
        detokenizer, splitter = self._detokenizer, self._splitter
        hidden = ends and not self.includes_stop
        if detokenizer is None or (hidden and not self._stopping):
            parts: Parts = []
        elif self._stopping and (hidden or token in detokenizer.skipped):
            parts = self._hide(detokenizer, token)
        elif splitter is None or splitter.state == "answer":
            text = detokenizer.push(token)
            parts = [("text", self.stops.push(text) if self._stopping else text)]
        else:
            parts = self._search(splitter.push(detokenizer.push(token)))
        if last or self.stops.matched is not None:
            parts += self._rest()
        return self._taken(parts if len(parts) == 1 else self._joined(parts), last or self.stops.matched is not None)

    def finish(self) -> list[Part]:
        """Return what was held back, where no token comes any more; none that says nothing."""
        return [part for part in self._taken(self._joined(self._rest()), True) if part[1] or part[2] is not None]

    def _taken(self, parts: Parts, last: bool) -> list[Part]:
        """Look for calls, and note what there is."""
        if self._calls is None:
            found: list[Part] = [(kind, text, None) for kind, text in parts]
        else:
            found = self._called(self._calls, parts, last)
        for kind, text, _ in found:
            self._found[kind].append(text)
        return found

    def _called(self, splitter: CallSplitter, parts: Parts, last: bool) -> list[Part]:
        """Look for calls in the parts of the answer; return what is certain."""
        found: list[Part] = []
        for kind, text in parts:
            if kind == "text":
                begun, self._begun = self._begun, ""
                found += splitter.push(begun + text)
            elif text:
                found.append((kind, text, None))
        found += splitter.flush() if last else ()
        self.calls += [call for _, _, call in found if call is not None]
        return found or [("tool_call" if splitter.inside else parts[-1][0], "", None)]

    def _search(self, parts: Parts) -> Parts:
        """Look for stop texts in the parts of the answer; return what is certain."""
        if not self._stopping:
            return parts
        return [(kind, self.stops.push(text) if kind == "text" else text) for kind, text in parts]

    def _hide(self, detokenizer: Detokenizer, token: int) -> Parts:
        """Look for stop texts in a token that is left out of the text; return what is certain with it."""
        if self._token_text is None or self.thinking:
            return []
        text, parts = self._token_text(token), list[tuple["Kind", str]]()
        if self.stops.names(text):  # the answer ends here: what was held back comes before this token
            parts = self._settled(detokenizer)
        return [*parts, ("text", self.stops.push(text, hidden=True))]

    def _settled(self, detokenizer: Detokenizer) -> Parts:
        """What was held back before stop texts were looked for, now that no more is to come before them."""
        text = detokenizer.flush()
        if self._splitter is None:
            return self._search([("text", text)])
        return self._search([*self._splitter.push(text), *self._splitter.flush()])

    def _rest(self) -> Parts:
        """What was held back, now that no more is to come; nothing behind a stop text."""
        if self.stops.matched is not None:
            if self._splitter is not None:
                self._splitter.flush()
            return []
        if self._detokenizer is None:
            return []
        return [*self._settled(self._detokenizer), ("text", self.stops.flush())]

    def _joined(self, parts: Parts) -> Parts:
        """Neighbours of a kind as one, without empty ones."""
        joined: Parts = []
        for kind, text in parts:
            if text and joined and joined[-1][0] == kind:
                joined[-1] = kind, joined[-1][1] + text
            elif text:
                joined.append((kind, text))
        return joined or [("reasoning" if self.thinking else "text", "")]
