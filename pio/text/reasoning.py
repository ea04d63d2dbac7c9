"""Reasoning and answer: a model that thinks writes ``<think>…</think>`` before it answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

OPEN: Final = "<think>"
CLOSE: Final = "</think>"

Kind: TypeAlias = Literal["text", "reasoning", "markup", "tool_call"]
"""What a piece of a model's text is: of the answer, of the reasoning before it, of a call of a tool, or what only tells
them apart."""

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

    def splitter(self) -> ReasoningSplitter:
        """Return what splits one stream of text."""
        return ReasoningSplitter(inside=self.inside)


def opens_reasoning(prompt: str) -> bool:
    """Say whether a rendered prompt ends inside reasoning, so that the model's text needs no ``<think>``."""
    return prompt.rstrip().endswith(OPEN)


class ReasoningSplitter:
    """Splits a stream of text into reasoning and answer; tags may be cut anywhere, and no character is lost.

    Only a block that the text begins with is reasoning; tags further on belong to the answer. The tags, what stands
    before the first, and line ends around the reasoning and before the answer are markup, as Qwen's own chat templates
    drop them. Without an end tag all of it is reasoning. One object serves one answer and one thread.

    Attributes:
        state: Where the text ends, as far as that is certain; after ``flush`` it is.
    """

    def __init__(self, *, inside: bool = False) -> None:
        """Start before the first character.

        Args:
            inside: Whether the prompt ended with ``<think>``.
        """
        self._opened = inside
        self.state: State = "start"
        self._held: str = ""
        self._started = False

    @property
    def inside(self) -> bool:
        """Whether the text so far ends inside the reasoning."""
        return self.state == "reasoning" or (self.state == "start" and self._opened)

    def push(self, piece: str) -> list[tuple[Kind, str]]:
        """Add text and return what is certain now, in order.

        Returns:
            Pairs of kind and text, never with an empty text.
        """
        if self.state == "answer":
            return [("text", piece)] if piece else []
        self._held += piece
        found: list[tuple[Kind, str]] = []
        if self.state == "start":
            self._start(found)
        if self.state == "reasoning":
            self._reason(found)
        if self.state == "gap":
            self._take(found, "markup", len(self._held) - len(self._held.lstrip("\n")))
            if self._held:
                self.state = "answer"
        if self.state == "answer":
            self._take(found, "text", len(self._held))
        return found

    def flush(self) -> list[tuple[Kind, str]]:
        """Return what was held back because it could have become a tag or the end of the reasoning."""
        found: list[tuple[Kind, str]] = []
        if self.state == "start":
            self.state = "reasoning" if self._opened else "answer"
        if self.state == "reasoning":
            self._lead(found)
            self._take(found, "reasoning", len(self._held.rstrip("\n")))
            self._take(found, "markup", len(self._held))
        self._take(found, "text", len(self._held))
        return found

    def _take(self, found: list[tuple[Kind, str]], kind: Kind, count: int) -> None:
        """Move so many characters from what is held to what was found, where pieces of a kind are one."""
        text, self._held = self._held[:count], self._held[count:]
        if text and found and found[-1][0] == kind:
            text = found.pop()[1] + text
        if text:
            found.append((kind, text))

    def _start(self, found: list[tuple[Kind, str]]) -> None:
        text = self._held.lstrip()
        if text.startswith(OPEN):
            self._take(found, "markup", len(self._held) - len(text) + len(OPEN))
            self.state = "reasoning"
        elif not OPEN.startswith(text):
            self.state = "reasoning" if self._opened else "answer"

    def _lead(self, found: list[tuple[Kind, str]]) -> None:
        if not self._started:
            self._take(found, "markup", len(self._held) - len(self._held.lstrip("\n")))

    def _reason(self, found: list[tuple[Kind, str]]) -> None:
        self._lead(found)
        reasoning, tag, _ = self._held.partition(CLOSE)
        if not tag:
            # line ends and the beginning of a tag may turn out to be the end of the reasoning
            cut = next(n for n in range(len(CLOSE) - 1, -1, -1) if reasoning.endswith(CLOSE[:n]))
            reasoning = reasoning[: len(reasoning) - cut]
        whole, reasoning = len(reasoning), reasoning.rstrip("\n")
        self._started = self._started or bool(reasoning)
        self._take(found, "reasoning", len(reasoning))
        if tag:
            self._take(found, "markup", whole - len(reasoning) + len(CLOSE))
            self.state = "gap"
