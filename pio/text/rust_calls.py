"""Calls into libraries written in Rust: what they take as text, and typed errors for their panics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pio.errors import ConfigError, PioError
from pio.loading.model_file import shown

_Result = TypeVar("_Result")


def check_text(text: object, name: str) -> None:
    """Refuse what Rust has no string for.

    Args:
        text: Hopefully a str.
        name: What to call it.

    Raises:
        ConfigError: It is no str, or no valid Unicode.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{name} must be a str, found {type(text).__name__}; decode bytes with .decode('utf-8')")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} holds a lone surrogate, U+{ord(text[error.start]):04X}, at character {error.start}; "
            "read it with errors='replace', or remove it"
        ) from None


def guarded(work: Callable[[], _Result], error: type[PioError], message: str) -> _Result:
    """Run Rust code; its panics derive from BaseException alone and would pass every ``except Exception``."""
    try:
        return work()
    except (PioError, MemoryError):
        raise
    except Exception as cause:
        raise error(f"{message} ({shown(str(cause), 200)})") from cause
    except BaseException as cause:
        if type(cause).__name__ != "PanicException":
            raise
        raise error(f"{message} (it panicked: {shown(str(cause), 200)})") from cause
