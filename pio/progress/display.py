"""How progress is drawn: as a line that moves, or as lines that stay."""

from __future__ import annotations

from typing import Any, Final, Protocol, TextIO

from pio.shelter import import_whole
from pio.threads import THREAD_ROOM, require_room

NARROW: Final = 64  # columns of a terminal that has room for little but words


class Display(Protocol):
    """Shows one step at a time."""

    def say(self, step: str, detail: str, done: int, total: int) -> None:
        """Show a step, what of it is being done, and how much of it is; a total of 0 is unknown."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


class Bar:
    """A line that moves, on a terminal, and leaves nothing behind."""

    def __init__(self, stream: TextIO) -> None:
        import_whole("rich.progress")
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        console = Console(file=stream, legacy_windows=False)  # it takes escape sequences
        # only the words give way where the line is short
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        bar = BarColumn(bar_width=10, table_column=Column(min_width=10))
        time = TimeElapsedColumn(table_column=Column(min_width=7))
        columns: list[ProgressColumn] = [SpinnerColumn(), bar, time, text]
        if console.width < NARROW:
            columns = [SpinnerColumn(), text]
        # what the host program prints is its own: nothing is redirected
        self._bar: Any = Progress(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=None)
        require_room(THREAD_ROOM, "a thread")
        self._bar.start()

    def say(self, step: str, detail: str, done: int, total: int) -> None:
        """Put a step in the place of the last one."""
        number = f"{done}/{total} " if total else ""  # in front, where no narrow terminal cuts it off
        self._bar.update(
            self._task, description=f"{number}{step}{detail}", completed=done, total=total or None, refresh=True
        )

    def close(self) -> None:
        """Take the line back."""
        self._bar.stop()


class Lines:
    """One line for each step, where a line cannot be taken back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def say(self, step: str, detail: str, done: int, total: int) -> None:
        """Write a step that has not been written yet."""
        if step != self._last:
            self._last = step
            self._stream.write(step + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Leave the lines there."""
