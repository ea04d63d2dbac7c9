"""Standard output and input as commands need them: no character is refused, and a failure ends the command in order."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from pio.errors import ConfigError
from pio.progress.stream import is_terminal
from pio.system import HERE

BROKEN_PIPE = 141  # as a shell reports a process whose reader went away
STRICT = ("strict", "surrogateescape")  # ways to encode that refuse characters
UNDECODED = re.compile("[\udc80-\udcff]")  # what Python makes of bytes that are not in an encoding


class OutputError(Exception):
    """Standard output cannot be written; nobody but the outermost frame has anything to do about it.

    Its message is for standard error, and empty where nothing is to be said.

    Attributes:
        exit_code: What the process ends with.
    """

    def __init__(self, message: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Output(io.TextIOWrapper):
    """Standard output; what its encoding lacks is written as an escape, and what goes wrong is an OutputError."""

    _failure: OutputError | None = None  # raised again, for input() swallows the first one

    def write(self, text: str, /) -> int:
        """Write text."""
        if self._failure is not None:
            raise self._failure
        with self._failing_in_order():
            return super().write(text)

    def flush(self) -> None:
        """Write what is still buffered."""
        with self._failing_in_order():
            super().flush()

    @contextmanager
    def _failing_in_order(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            closed = HERE.is_closed_pipe(error, self.fileno())
            self._discard()
            if closed:
                self._failure = OutputError(exit_code=BROKEN_PIPE)
            else:
                self._failure = OutputError(f"standard output cannot be written: {error.strerror}; write it elsewhere")
            raise self._failure from None

    def _discard(self) -> None:
        """Send what is buffered, and all that follows, nowhere: the interpreter's last flush must not fail again."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def prepare_streams() -> None:
    """Put an Output in the place of standard output, and let input through that is not in its encoding.

    Raises:
        OutputError: Standard output is closed.
    """
    given: Any = sys.stdin
    if given is None:  # closed, as <&- does it: there is nothing to read
        sys.stdin = open(os.devnull, encoding="utf-8")
    elif isinstance(given, io.TextIOWrapper):
        sys.stdin = _prepared_input(given)
    errors: Any = sys.stderr
    if type(errors) is io.TextIOWrapper:
        errors.reconfigure(encoding=_other_encoding(errors), newline=_line_end(errors))
    out: Any = sys.stdout
    if out is None:  # as >&- does it
        raise OutputError(f"standard output is closed; open it, or send it to {os.devnull}")
    if type(out) is io.TextIOWrapper:
        sys.stdout = _prepared_output(out)
    for stream in (sys.stdout, sys.stderr):
        is_terminal(stream)  # where it is one, it takes escape sequences from here on


def _prepared_input(given: Any) -> Any:
    encoding = _other_encoding(given)
    redirected = HERE.redirected_encoding is not None and not given.isatty()
    if redirected and (encoding or given.encoding) == "utf-8":
        encoding = "utf-8-sig"  # without the mark that programs put before a text of theirs
    pipe = None
    with suppress(OSError, ValueError):  # what a program has put in its place may have no descriptor
        pipe = HERE.input_pipe(given.fileno())
    if pipe is not None:
        given = io.TextIOWrapper(io.BufferedReader(pipe), given.encoding)
    given.reconfigure(encoding=encoding, errors="surrogateescape")  # require_text refuses it where it matters
    return given


def _prepared_output(out: io.TextIOWrapper) -> Output:
    buffer: Any = out.buffer
    return Output(
        buffer,
        _other_encoding(out) or out.encoding,
        "backslashreplace" if out.errors in STRICT else out.errors,
        newline=_line_end(out),
        line_buffering=out.line_buffering,
    )


def _line_end(stream: io.TextIOWrapper) -> str | None:
    """What ends a line in a stream: where it is redirected as an answer has it, else as the terminal wants it."""
    return None if stream.isatty() else "\n"


def _other_encoding(stream: io.TextIOWrapper) -> str | None:
    """What a redirected stream is to be in, where neither Python nor who started it has chosen well or at all."""
    if HERE.redirected_encoding is None or stream.isatty():
        return None
    chosen = os.environ.get("PYTHONIOENCODING", "").partition(":")[0] or os.environ.get("PYTHONUTF8")
    return None if chosen and not sys.flags.ignore_environment else HERE.redirected_encoding


def require_text(text: str, what: str, encoding: str | None = None) -> str:
    """Return a text from outside, if it is one.

    Args:
        text: As it was read, with surrogates for bytes that are not in the encoding.
        what: Its name in the error.
        encoding: How it was read; None for an argument.

    Raises:
        ConfigError: It holds such bytes.
    """
    if found := UNDECODED.search(text):
        byte, encoding = ord(found[0]) - 0xDC00, (encoding or sys.getfilesystemencoding()).removesuffix("-sig")
        raise ConfigError(
            f"{what} is no {encoding} text: found byte 0x{byte:02X} after {found.start()} characters; "
            "convert it to UTF-8, and set PYTHONUTF8=1 where the locale has another encoding"
        )
    return text
