"""What somebody says in ``pio chat``: a line, several lines, or a whole paste."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pio.cli.console import note, write
from pio.system import HERE

PROMPT, FURTHER = "> ", ". "
QUOTES = '"""'


def edit_lines() -> None:
    """Have ``input`` edit lines and remember them, and take a paste as one text, where Python was built for it."""
    try:
        readline: Any = import_module("readline")
    except ImportError:
        return
    if "libedit" not in (readline.__doc__ or ""):  # which has no such setting
        readline.parse_and_bind("set enable-bracketed-paste on")  # Python switches it off


def next_message(terminal: bool, read: Callable[[str], str] = input) -> str | None:
    """Return what is said next, None at the end.

    A line that ends with a backslash goes on with the next one, and lines between triple quotes are one message; what
    was pasted in one piece is one as it is.

    Args:
        terminal: Whether somebody types: there are prompts, and Ctrl-C drops what was typed.
        read: Returns the next line without its end, given a prompt.

    Raises:
        KeyboardInterrupt: Over a pipe.
    """
    while True:
        try:
            return _message((lambda prompt: _typed(prompt, read)) if terminal else (lambda _: read("")))
        except EOFError:
            if terminal:
                write("\n")
            return None
        except KeyboardInterrupt:
            if not terminal:
                raise
            write("\n")
            note(f"{HERE.end_of_input} leaves")


def _typed(prompt: str, read: Callable[[str], str]) -> str:
    """A line, or all lines of a paste, where the line editor gives these one by one."""
    text = read(prompt)
    while HERE.has_more_typed():
        text += "\n" + read(FURTHER)
    return text


def _message(read: Callable[[str], str]) -> str:
    text = read(PROMPT)
    if "\n" in text:  # pasted
        return text
    try:
        if text.startswith(QUOTES):
            text = text.removeprefix(QUOTES)
            while not text.endswith(QUOTES):
                text += "\n" + read(FURTHER)
            return text.removesuffix(QUOTES).strip("\n")
        while text.endswith("\\"):
            text = text[:-1]
            text += "\n" + read(FURTHER)
    except EOFError:  # what there is, is all; the next line says that it is over
        if sys.stdin.isatty():
            write("\n")
    return text
