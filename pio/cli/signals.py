"""Signals that ask the process to end, and what must be tidied up before it does."""

from __future__ import annotations

import signal
from typing import NoReturn

from pio.system import HERE


def end_in_order() -> None:
    """Let these signals end the process by an exception, as Ctrl-C does, with the exit code that a shell reports.

    One that is ignored, as nohup has it, stays ignored.
    """
    for number in HERE.ending_signals:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)
    HERE.end_in_order()


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
