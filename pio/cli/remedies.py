"""Messages that name arguments of Python, in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Arguments whose option has a name of its own.
RENAMED = {"answers": "n", "special_tokens": "skip_special_tokens"}
_VALUE = r"('[^']*'|\"[^\"]*\"|\[[^\]]*\]|[^\s,;:()]+)"
# Of options that take more than these, and so are no flags; and what a message says of the values in Python.
_SWITCHES = {"True": "on", "False": "off"}
_IN_PYTHON = (("'on' or True, 'off' or False", "on, off"), ("a number or a text such as '4GiB'", "a size such as 4GiB"))
_DOWNLOAD = ", or pass download=True"

_options: dict[str, str] = {}  # of the command that runs, by argument
_flags: set[str] = set()


def speak_of(parameters: Iterable[Any]) -> None:
    """Set the options that messages are to name: those of a command's parameters."""
    _options.clear()
    _flags.clear()
    for parameter in parameters:
        given, option = str(parameter.name), str(max(parameter.opts, key=len))
        if option.startswith("--"):
            name = RENAMED.get(given, given)
            _options[name] = option
            if getattr(parameter, "is_flag", False):
                _flags.add(name)


def as_options(message: str) -> str:
    """Return a message with arguments such as ``memory_limit=5`` and ``memory_limit`` as options of the command.

    What stands in quotes is a value, whatever it is called.
    """
    message = message.replace(_DOWNLOAD, "").removesuffix(" or None")
    if not _options:
        return message
    for theirs, ours in _IN_PYTHON:
        message = message.replace(theirs, ours)
    names = "|".join(sorted(_options, key=len, reverse=True))
    message = re.sub(rf"(?<![\w./=-])({names})={_VALUE}", _given, message)
    message = re.sub(rf"^({names})(?= is )", lambda found: _options[found[1]], message)
    message = re.sub(
        r"(?<![\w./='-])[a-z]+_[a-z_]+(?![\w./=(])", lambda found: _options.get(found[0], found[0]), message
    )
    return message


def _given(found: re.Match[str]) -> str:
    option = _options[found[1]]
    return option if found[1] in _flags else f"{option} {_SWITCHES.get(found[2], found[2])}"
