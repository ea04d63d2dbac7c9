"""The shape of an answer, as the command line gives it: a file of JSON, a regular expression, or any JSON object."""

from __future__ import annotations

from typing import Any, Final

from pio.cli.json_option import read_json

MAX_BYTES: Final = 1 << 20
EXPECTED: Final = (
    "expected json for any JSON object, regex:… for a text that matches, or a file with a JSON schema or a list of "
    "choices"
)


def read_response_format(given: str) -> Any:
    """Return what ``response_format`` takes in Python.

    Args:
        given: "json", "regex:…", or the path of a JSON file.

    Raises:
        ConfigError: The file cannot be read, is too large, or holds no JSON.
    """
    if given == "json":
        return {"type": "json_object"}
    if given.startswith("regex:"):
        return given
    return read_json("--response-format", given, MAX_BYTES, EXPECTED)
