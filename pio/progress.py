"""Progress for what takes longer than a second: loading, and the first compilation of kernels."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, cast

from pio.shelter import import_whole

DELAY = 1.0  # seconds without a word

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
        self._step, self._detail = title, ""
        self._compiled = 0
        self._lock = threading.Lock()
        self._open = False
        self._display: _Display | None = None
        self._timer: threading.Timer | None = None
        self._watch: AbstractContextManager[None] | None = None

    def __enter__(self) -> Self:
        from pio.ops import compilation  # imports numba, as does all that takes long

        self._open = True
        self._watch = compilation.watch(self._started)
        self._watch.__enter__()
        stream: Any = sys.stderr if self._stream is None else self._stream
        terminal = is_terminal(stream)
        if self._wanted:
            self._show(_Bar if terminal else _Lines, stream)
        elif self._wanted is None and terminal:
            timer = threading.Timer(self._delay, self._show, (_Bar, stream))
            timer.daemon = True
            with suppress(RuntimeError, MemoryError):  # the system refuses one more thread
                timer.start()
                self._timer = timer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.__exit__(kind, error, trace)
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:  # a timer that has just fired either has drawn by now, or finds it closed
            self._open = False
            display, self._display = self._display, None
            if display is not None:
                display.close()
                _terminal.release()

    def say(self, step: str, detail: str = "") -> None:
        """Name the step that begins, and what of it is being done."""
        with self._lock:
            self._step, self._detail = step, detail
            if self._display is not None:
                self._display.say(step, detail)

    @property
    def compiled(self) -> int:
        """Kernels that were compiled so far."""
        return self._compiled

    def _show(self, make: Callable[[TextIO], _Display], stream: object) -> None:
        with self._lock:
            if not self._open or stream is None or not _terminal.acquire(blocking=False):
                return
            try:
                self._display = make(cast("TextIO", Forgiving(stream)))
                self._display.say(self._step, self._detail)
            except Exception as error:  # of whatever kind: what cannot be shown is no reason to fail
                self._display = None
                _terminal.release()
                _log.info("progress cannot be shown: %s: %s", type(error).__name__, error)

    def _started(self, name: str) -> None:
        _log.info("compiling %s", name)
        self._compiled += 1
        self.say("compiling kernels for this machine (once)", f": {name} ({self._compiled})")


class _Display(Protocol):
    def say(self, step: str, detail: str) -> None: ...
    def close(self) -> None: ...


class _Bar:
    """A line that moves, on a terminal, and leaves nothing behind."""

    def __init__(self, stream: TextIO) -> None:
        import_whole("rich.progress")
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        columns = (SpinnerColumn(), BarColumn(bar_width=10), TimeElapsedColumn(), text)
        # what the host program prints is its own: nothing is redirected
        self._bar: Any = Progress(
            *columns,
            console=Console(file=stream),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def say(self, step: str, detail: str) -> None:
        self._bar.update(self._task, description=step + detail, refresh=True)

    def close(self) -> None:
        self._bar.stop()


class _Lines:
    """One line for each step, where a line cannot be taken back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def say(self, step: str, detail: str) -> None:
        if step != self._last:
            self._last = step
            self._stream.write(step + "\n")
            self._stream.flush()

    def close(self) -> None:
        pass


class Forgiving:
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
    """Return whether a stream, which may be any object or None, is an open terminal."""
    try:
        return bool(stream.isatty())
    except Exception:  # it is closed, has no such method, or its own does not work
        return False
