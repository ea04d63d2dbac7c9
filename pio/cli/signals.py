"""Signals that ask the process to end, and what must be tidied up before it does."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Final, NoReturn

from pio.system import HERE

INTERRUPTED: Final = 130  # as a shell reports a process that Ctrl-C ended


def end_in_order() -> None:
    """Let these signals end the process by an exception, as Ctrl-C does, with the exit code that a shell reports.

    One that is ignored, as nohup has it, stays ignored.
    """
    for number in HERE.ending_signals:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)
    HERE.end_in_order()


def leave(error: KeyboardInterrupt | SystemExit) -> NoReturn:
    """End the process at once, with the exit code that it would have had: no thread is waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, or nobody reads it
            stream.flush()
    os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else INTERRUPTED)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
