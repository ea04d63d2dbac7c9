"""Progress for what takes longer than a second: loading, and the first compilation of kernels."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cache
from itertools import count
from types import TracebackType
from typing import Any, Self, TextIO, cast

from pio.progress.display import Bar, Display, Lines
from pio.progress.stream import ForgivingStream, is_terminal
from pio.threads import start

DELAY = 1.0  # seconds without a word
MANY = 100_000  # a total from which on it is shown in percent
COMPILING = "compiling kernels for this machine (once)"

_log = logging.getLogger("pio")
_terminal = threading.Lock()  # held by the one display of this process that draws


class Progress:
    """Says on standard error what is going on, and is gone when the context ends.

    Kernels that are compiled meanwhile, by whatever thread, are named and counted. Where another display of this
    process draws already, this one stays silent.
    """

    def __init__(self, wanted: bool | None, title: str, *, delay: float = DELAY, stream: TextIO | None = None) -> None:
        """Describe the work; nothing is drawn before the context begins.

        Args:
            wanted: True shows it at once, as plain lines where the stream is no terminal; None shows it on a terminal
                when the work takes longer than ``delay``; False never.
            title: The work, in a few words.
            delay: Seconds.
            stream: Where to draw; standard error by default.
        """
        self._wanted = wanted
        self._delay = delay
        self._stream = stream
        self._shown: tuple[str, str, int, int] = title, "", 0, 0
        self._compiled = 0
        self._kernels = self._waiting = 0  # that are compiled side by side, and those of them that have not begun
        self._lock = threading.Lock()
        self._open = False
        self._display: Display | None = None
        self._timer: threading.Timer | None = None
        self._watch: AbstractContextManager[None] | None = None

    def __enter__(self) -> Self:
        from pio.ops import compilation  # here, for it imports LLVM, as does all that takes long

        self._open = True
        self._watch = compilation.watch(self._started, left=self._left)
        self._watch.__enter__()
        stream: Any = sys.stderr if self._stream is None else self._stream
        terminal = is_terminal(stream)
        if self._wanted:
            self._show(Bar if terminal else Lines, stream)
        elif self._wanted is None and terminal:
            timer = threading.Timer(self._delay, self._show, (Bar, stream))
            timer.daemon = True
            with suppress(RuntimeError, MemoryError):  # the system refuses one more thread
                start(timer)
                self._timer = timer
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.__exit__(error_type, error, trace)
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:  # a timer that has just fired either has drawn by now, or finds it closed
            self._open = False
            display, self._display = self._display, None
            if display is not None:
                display.close()
                _terminal.release()

    def say(self, step: str, detail: str = "", *, done: int = 0, total: int = 0) -> None:
        """Name the step that begins, what of it is being done, and how much of it is, where that is known.

        Large totals, such as bytes, are shown in percent.
        """
        with self._lock:
            if total >= MANY:
                done, total = 100 * done // total, 100
            self._shown = step, detail, done, total
            if self._display is not None:
                self._display.say(*self._shown)

    def counting(self, step: str, total: Callable[[], int]) -> Callable[[str], None]:
        """Return a function that is to be called with the name of each part of a step as it begins.

        Args:
            step: The step.
            total: Returns how many parts there are; asked when the first begins.
        """
        numbers, parts = count(1), cache(total)
        return lambda name: self.say(step, f": {name}", done=next(numbers), total=parts())

    @property
    def compiled(self) -> int:
        """Kernels that were compiled so far."""
        return self._compiled

    def _show(self, make: Callable[[TextIO], Display], stream: object) -> None:
        with self._lock:
            if not self._open or stream is None or not _terminal.acquire(blocking=False):
                return
            try:
                self._display = make(cast("TextIO", ForgivingStream(stream)))
                self._display.say(*self._shown)
            except Exception as error:  # of whatever kind: what cannot be shown is no reason to fail
                self._display = None
                _terminal.release()
                _log.info("progress cannot be shown: %s: %s", type(error).__name__, error)

    def _started(self, name: str) -> None:
        _log.info("compiling %s", name)
        self._compiled += 1
        number = "" if self._kernels else f" ({self._compiled})"  # what they call is compiled with them, and uncounted
        self.say(COMPILING, f": {name}{number}", done=self._kernels - self._waiting, total=self._kernels)

    def _left(self, kernels: int) -> None:
        """Take note of how many kernels are still to begin."""
        if not self._waiting:
            self._kernels = kernels
        self._waiting = kernels
