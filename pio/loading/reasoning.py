"""Reasoning and answer: a model that thinks writes ``<think>…</think>`` before it answers."""

from __future__ import annotations

from typing import Final, Literal

OPEN: Final = "<think>"
CLOSE: Final = "</think>"

Kind = Literal["reasoning", "answer"]


def split_reasoning(text: str, *, inside: bool = False) -> tuple[str | None, str]:
    """Split what a model wrote into its reasoning and its answer.

    Only a block that the text begins with is reasoning; tags further on belong to the answer. Line ends around the
    reasoning and before the answer are dropped, as Qwen's own chat templates do. Without an end tag all of it is
    reasoning.

    Args:
        text: What the model wrote.
        inside: Whether the prompt ended with ``<think>``, so that the text starts in the middle of the reasoning.

    Returns:
        The reasoning, None if there is none or an empty one, and the answer.
    """
    splitter = ReasoningSplitter(inside=inside)
    found: dict[Kind, list[str]] = {"reasoning": [], "answer": []}
    for kind, piece in [*splitter.push(text), *splitter.flush()]:
        found[kind].append(piece)
    return "".join(found["reasoning"]) or None, "".join(found["answer"])


def opens_reasoning(prompt: str) -> bool:
    """Say whether a rendered prompt ends inside reasoning, so that the model's text needs no ``<think>``."""
    return prompt.rstrip().endswith(OPEN)


class ReasoningSplitter:
    """Splits a stream of text as ``split_reasoning`` splits the whole; tags may be cut anywhere.

    One object serves one answer and one thread.
    """

    def __init__(self, *, inside: bool = False) -> None:
        """Start before the first character.

        Args:
            inside: Whether the prompt ended with ``<think>``.
        """
        self._inside = inside
        self._state: Literal["start", "reasoning", "gap", "answer"] = "start"
        self._held: str = ""
        self._started = False

    def push(self, piece: str) -> list[tuple[Kind, str]]:
        """Add text and return what is certain now, in order.

        Returns:
            Pairs of kind and text, never with an empty text.
        """
        self._held += piece
        found: list[tuple[Kind, str]] = []
        if self._state == "start":
            self._start()
        if self._state == "reasoning":
            self._reason(found)
        if self._state == "gap":
            self._held = self._held.lstrip("\n")
            if self._held:
                self._state = "answer"
        if self._state == "answer" and self._held:
            found.append(("answer", self._held))
            self._held: str = ""
        return found

    def flush(self) -> list[tuple[Kind, str]]:
        """Return what was held back because it could have become a tag or the end of the reasoning."""
        held, self._held = self._held, ""
        if self._state == "start":
            self._state = "reasoning" if self._inside else "answer"
        if self._state == "reasoning":
            held = held.strip("\n") if not self._started else held.rstrip("\n")
            return [("reasoning", held)] if held else []
        return [("answer", held)] if held and self._state == "answer" else []

    def _start(self) -> None:
        text = self._held.lstrip()
        if text.startswith(OPEN):
            self._held, self._state = text[len(OPEN) :], "reasoning"
        elif not OPEN.startswith(text):
            self._state = "reasoning" if self._inside else "answer"

    def _reason(self, found: list[tuple[Kind, str]]) -> None:
        text = self._held if self._started else self._held.lstrip("\n")
        reasoning, tag, rest = text.partition(CLOSE)
        if tag:
            self._state, self._held = "gap", rest
        else:
            # Line ends and the beginning of a tag may turn out to be the end of the reasoning.
            cut = next(n for n in range(len(CLOSE) - 1, -1, -1) if text.endswith(CLOSE[:n]))
            reasoning = text[: len(text) - cut]
            self._held = text[len(reasoning.rstrip("\n")) :]
        reasoning = reasoning.rstrip("\n")
        if reasoning:
            self._started = True
            found.append(("reasoning", reasoning))
