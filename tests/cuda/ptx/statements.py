"""Cuts a text of PTX into statements: directives, headers of functions, labels, braces, instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import PtxSyntaxError

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"", re.DOTALL)
_LABEL = re.compile(r"([\w$%]+)\s*:(?!:)")
_SPACE = re.compile(r"\s+")
# Directives that end with their line
_LINE = re.compile(r"\.(version|target|address_size|file|loc)\b[^\n]*")
_HEADER = re.compile(r"(\.(visible|weak|extern|common)\s+)*\.(entry|func)\b")
_SECTION = re.compile(r"\.section\b[^{]*\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Statement:
    kind: str  # line, header, declaration (a header that ends with ;), open, close, label, plain
    text: str
    line: int


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements of a text, comments left out, each with the number of its first line."""
    text = _COMMENT.sub(lambda m: m[0] if m[0][0] == '"' else " " + "\n" * m[0].count("\n"), text)
    place, line = 0, 1

    while place < len(text):
        space = _SPACE.match(text, place)
        if space:
            line += space[0].count("\n")
            place = space.end()
            continue
        found = _statement(text, place, line)
        end = place + len(found.text)
        yield Statement(found.kind, found.text.strip(" ;\n\t"), line)
        line += found.text.count("\n")
        place = end


def _statement(text: str, place: int, line: int) -> Statement:
    """Return the statement that begins at a place, with all of its text."""
    if text[place] in "{}":
        return Statement("open" if text[place] == "{" else "close", text[place], line)
    if text[place] == ";":
        return Statement("line", ";", line)
    for pattern in (_LINE, _SECTION):
        found = pattern.match(text, place)
        if found:
            return Statement("line", found[0], line)
    found = _LABEL.match(text, place)
    if found:
        return Statement("label", found[0], line)
    if _HEADER.match(text, place):
        found = re.compile(r"[^{;]*").match(text, place)
        ends = found is not None and text[found.end() : found.end() + 1] == ";"
        return Statement("declaration" if ends else "header", found[0] if found else "", line)
    end = text.find(";", place)
    if end < 0:
        raise PtxSyntaxError(f"line {line}: no ; ends {text[place : place + 40]!r}")
    return Statement("plain", text[place : end + 1], line)


def split(text: str, separator: str = ",") -> list[str]:
    """Split at separators that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == separator and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    last = text[start:].strip()
    return [*parts, last] if last or parts else []
