"""Standard error as a host program has it: whatever it is, what it cannot take is dropped."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pio.system import HERE


class ForgivingStream:
    """Standard error as a host program has it, any object or None: what it cannot take is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.encoding = str(getattr(stream, "encoding", None) or "utf-8")

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return is_terminal(self._stream)

    def fileno(self) -> int:
        """Return its descriptor, which tells a terminal's width."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(Exception):
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode("ascii", "replace").decode("ascii"))
        return len(text)

    def flush(self) -> None:
        """Hand it to the system."""
        with suppress(Exception):
            self._stream.flush()


def is_terminal(stream: Any) -> bool:
    """Return whether a stream, which may be any object or None, is an open terminal that takes escape sequences."""
    try:
        return bool(stream.isatty()) and HERE.takes_escapes(stream)
    except Exception:  # it is closed, has no such method, or its own does not work
        return False
