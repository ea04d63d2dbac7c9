"""Tools of ``pio generate``: the file that describes them."""

from __future__ import annotations

from typing import Any, Final

from pio.cli.json_option import read_json
from pio.errors import ConfigError
from pio.loading.model_file import shown_path

_WAYS = ("auto", "none", "required")
MAX_BYTES: Final = 1 << 24  # of a file, far more than any context
EXPECTED: Final = "expected a file with a list of JSON schemas of functions"


def tool_fields(tools: str | None, choice: str | None) -> dict[str, Any]:
    """Return the arguments of ``generate`` for what was given of tools.

    Args:
        tools: The path of a JSON file with a list of JSON schemas.
        choice: auto, none, required, or the name of one.

    Raises:
        ConfigError: The file cannot be read, or there is a choice and no file.
    """
    if tools is None:
        if choice is not None:
            raise ConfigError("--tool-choice is for --tools; leave it out, or give tools")
        return {}
    found = read_json("--tools", tools, MAX_BYTES, EXPECTED)
    if not isinstance(found, list) or not found:
        raise ConfigError(f"--tools: {shown_path(tools)} holds no list of tools; {EXPECTED}")
    fields: dict[str, Any] = {"tools": found}
    if choice is not None:
        fields["tool_choice"] = choice if choice in _WAYS else {"name": choice}
    return fields
