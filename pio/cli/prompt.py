"""The prompt of ``pio generate``: an argument, what a pipe holds, or the built-in example."""

from __future__ import annotations

import sys
from typing import Any

from pio.cli.console import note
from pio.cli.streams import require_text
from pio.errors import CheckpointError, ConfigError
from pio.system import HERE

# What the demo model shows of itself when nobody asks for anything.
SHOWN_PROMPT = '''def read_json(path):
    """Read a JSON file and return its content."""
'''
SHOWN_FIELDS: dict[str, Any] = {"repetition_penalty": 1.1, "max_new_tokens": 150, "seed": 19, "stop": ["\n```"]}

LONGEST = 1 << 24  # characters of standard input, far more than any context
PATIENCE = 2.0  # seconds


def read_prompt(model: str, prompt: str | None, *, named: bool) -> str | None:
    """Return the text to go on with; None for the built-in example.

    Without a prompt, or with ``-``, it is what standard input holds, as it is; a terminal is not asked.

    Args:
        model: The model's name.
        prompt: The argument.
        named: Whether the model was named; where neither it nor a prompt is, an input that stays silent is not waited
            for.

    Raises:
        ConfigError: There is none, or it is no text.
        CheckpointError: There is no prompt, and no such model either.
    """
    if prompt not in (None, "-"):
        return require_text(prompt, "the prompt")
    if model != "demo" and prompt is None:
        _require(model)  # rather than wait for the prompt of a model that is none
    piped = _piped(patient=named or prompt == "-") if prompt == "-" or not sys.stdin.isatty() else ""
    if piped or prompt == "-":
        return piped
    if model == "demo":
        return None
    raise ConfigError(
        f"there is no prompt; give one after the model, or pipe it in: pio generate {HERE.quote(model)} PROMPT"
    )


def _piped(*, patient: bool) -> str:
    """Everything on standard input; empty where nothing comes and nobody has asked for it."""
    if not _has_begun():
        if not patient:
            note("note: nothing came on standard input; pio generate demo waits for it")
            return ""
        note("reading the prompt from standard input")
    text = sys.stdin.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise ConfigError(f"standard input holds more than {LONGEST:,} characters; give a shorter prompt")
    return require_text(text, "standard input", sys.stdin.encoding)


def _has_begun() -> bool:
    """Whether standard input has something, or its end, within the time that people wait without a word."""
    try:
        return HERE.has_input(sys.stdin.fileno(), PATIENCE)
    except (OSError, ValueError):  # no file, so nothing can be slow
        return True


def _require(model: str) -> None:
    """Raise an error where there is no such model; what was meant as the prompt may stand in its place."""
    from pio.plugin.loader import find

    try:
        find(model)
    except CheckpointError:
        if not any(character.isspace() or character in "()<>?!,:;" for character in model):
            raise
        shown = model[:80]
        raise ConfigError(
            f"{shown!r} is no model, and a prompt comes after one: pio generate demo {HERE.quote(shown)}"
        ) from None
