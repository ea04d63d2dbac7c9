"""Reasoning and answer: a model that thinks writes ``<think>…</think>`` before it answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

OPEN: Final = "<think>"
CLOSE: Final = "</think>"

Kind = Literal["reasoning", "answer"]
State: TypeAlias = Literal["start", "reasoning", "gap", "answer"]


@dataclass(frozen=True)
class Reasoning:
    """How a conversation's answer is told apart from the reasoning before it.

    Attributes:
        inside: Whether the prompt ends inside the reasoning.
        expected: Whether the model may begin to think before it answers.
    """

    inside: bool = False
    expected: bool = False

    @property
    def possible(self) -> bool:
        """Whether the model may think before it answers."""
        return self.inside or self.expected

    @classmethod
    def of(cls, prompt: str, template: Iterable[str], continued: bool | None = None) -> Self:
        """Tell by a rendered prompt, and by the sources of the template that wrote it.

        A model may think where its template knows of reasoning, unless the prompt has closed it, as templates do for
        ``enable_thinking=False``.

        Args:
            prompt: The whole of it.
            template: Sources.
            continued: Whether the message that is left open is in its reasoning; None where none is open.
        """
        if continued is not None:
            return cls(continued)
        closed = prompt.rstrip().endswith(CLOSE)
        knows = any(tag in source for source in template for tag in (OPEN, CLOSE))
        return cls(opens_reasoning(prompt), expected=knows and not closed)

    def split(self, text: str) -> tuple[str | None, str, State]:
        """Split what a model wrote into its reasoning and its answer.

        Only a block that the text begins with is reasoning; tags further on belong to the answer. Line ends around the
        reasoning and before the answer are dropped, as Qwen's own chat templates do. Without an end tag all of it is
        reasoning.

        Returns:
            The reasoning, None if there is none or an empty one that ended; the answer; and in which of the two, or in
            the gap between, the text ends.
        """
        splitter = ReasoningSplitter(inside=self.inside)
        found: dict[Kind, list[str]] = {"reasoning": [], "answer": []}
        for kind, piece in [*splitter.push(text), *splitter.flush()]:
            found[kind].append(piece)
        reasoning, end = "".join(found["reasoning"]), splitter.state
        return reasoning if reasoning or end == "reasoning" else None, "".join(found["answer"]), end

    def follow(self) -> AnswerFinder:
        """Return what finds the answer in one stream of text."""
        return AnswerFinder(inside=self.inside)


class AnswerFinder:
    """Finds in a stream of text where the answer begins: behind the reasoning, its end tag and line ends.

    No character is lost: what stands before the answer and the answer are together the text. One object serves one
    answer and one thread.
    """

    def __init__(self, *, inside: bool = False) -> None:
        """Start before the first character; ``inside`` says whether the prompt ended with ``<think>``."""
        self._opened = inside
        self._seen = ""  # what may be the beginning of a tag
        self._state: State = "start"

    @property
    def inside(self) -> bool:
        """Whether the text so far ends inside the reasoning."""
        return self._state == "reasoning" or (self._state == "start" and self._opened)

    def push(self, piece: str) -> tuple[str, str]:
        """Return what is certain with this piece: text before the answer, and text of the answer."""
        if self._state == "answer":
            return "", piece
        if self._state == "start":
            self._seen += piece
            if _undecided(self._seen):
                return "", ""
            piece, self._seen = self._seen, ""
            self._state = "reasoning" if self._opened or piece.lstrip().startswith(OPEN) else "answer"
            if self._state == "answer":
                return "", piece
        at = 0
        if self._state == "reasoning":
            text = self._seen + piece
            found = text.find(CLOSE)
            if found < 0:
                self._seen = text[1 - len(CLOSE) :]
                return piece, ""
            at, self._state = found + len(CLOSE) - len(self._seen), "gap"
        answer = piece[at:].lstrip("\n")
        if answer:
            self._state = "answer"
        return piece[: len(piece) - len(answer)], answer

    def flush(self) -> tuple[str, str]:
        """Return what was held back, when no more is to come."""
        if self._state != "start":
            return "", ""
        held, self._seen = self._seen, ""
        return (held, "") if self._opened else ("", held)


def opens_reasoning(prompt: str) -> bool:
    """Say whether a rendered prompt ends inside reasoning, so that the model's text needs no ``<think>``."""
    return prompt.rstrip().endswith(OPEN)


class ReasoningSplitter:
    """Splits a stream of text as ``Reasoning.split`` splits the whole; tags may be cut anywhere.

    One object serves one answer and one thread.

    Attributes:
        state: Where the text ends, as far as that is certain; after ``flush`` it is.
    """

    def __init__(self, *, inside: bool = False) -> None:
        """Start before the first character.

        Args:
            inside: Whether the prompt ended with ``<think>``.
        """
        self._inside = inside
        self.state: State = "start"
        self._held: str = ""
        self._started = False

    def push(self, piece: str) -> list[tuple[Kind, str]]:
        """Add text and return what is certain now, in order.

        Returns:
            Pairs of kind and text, never with an empty text.
        """
        self._held += piece
        found: list[tuple[Kind, str]] = []
        if self.state == "start":
            self._start()
        if self.state == "reasoning":
            self._reason(found)
        if self.state == "gap":
            self._held = self._held.lstrip("\n")
            if self._held:
                self.state = "answer"
        if self.state == "answer" and self._held:
            found.append(("answer", self._held))
            self._held: str = ""
        return found

    def flush(self) -> list[tuple[Kind, str]]:
        """Return what was held back because it could have become a tag or the end of the reasoning."""
        held, self._held = self._held, ""
        if self.state == "start":
            self.state = "reasoning" if self._inside else "answer"
        if self.state == "reasoning":
            held = held.strip("\n") if not self._started else held.rstrip("\n")
            return [("reasoning", held)] if held else []
        return [("answer", held)] if held and self.state == "answer" else []

    def _start(self) -> None:
        text = self._held.lstrip()
        if text.startswith(OPEN):
            self._held, self.state = text[len(OPEN) :], "reasoning"
        elif not _undecided(text):
            self.state = "reasoning" if self._inside else "answer"

    def _reason(self, found: list[tuple[Kind, str]]) -> None:
        text = self._held if self._started else self._held.lstrip("\n")
        reasoning, tag, rest = text.partition(CLOSE)
        if tag:
            self.state, self._held = "gap", rest
        else:
            # Line ends and the beginning of a tag may turn out to be the end of the reasoning.
            cut = next(n for n in range(len(CLOSE) - 1, -1, -1) if text.endswith(CLOSE[:n]))
            reasoning = text[: len(text) - cut]
            self._held = text[len(reasoning.rstrip("\n")) :]
        reasoning = reasoning.rstrip("\n")
        if reasoning:
            self._started = True
            found.append(("reasoning", reasoning))


def _undecided(text: str) -> bool:
    """Whether a text may still begin with ``<think>``."""
    text = text.lstrip()
    return text != OPEN and OPEN.startswith(text)
