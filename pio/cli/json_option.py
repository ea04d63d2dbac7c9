"""Options that name a file of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pio.errors import ConfigError
from pio.loading.model_file import shown_path
from pio.text import strict_json


def read_json(option: str, path: str, max_bytes: int, expected: str) -> Any:
    """Return what a file holds; also a pipe, as ``<(…)`` of a shell is one, and whatever Unicode an editor wrote.

    Args:
        option: The option, for messages.
        path: The file.
        max_bytes: Bytes that it may have; no more are read.
        expected: What the option takes, for messages.

    Raises:
        ConfigError: The file cannot be read, is too large, or holds no JSON.
    """
    name = f"{option}: {shown_path(path)}"
    try:
        with Path(path).open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ConfigError(f"{name} holds more than {max_bytes:,} bytes; {expected}")
        return strict_json.loads(data)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror or error}; {expected}") from None
    except (ValueError, RecursionError) as error:  # also where the path is no name of a file
        raise ConfigError(f"{name} is no JSON ({error}); {expected}") from None
