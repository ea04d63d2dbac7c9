"""What commands write: answers on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pio.cli.remedies import as_options

if TYPE_CHECKING:
    from pio.engine.generation import Generation

MARKS = {"ok": "✓", "advice": "!", "missing": "✗", "failed": "✗"}


def write(text: str) -> None:
    """Write text as it is, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """Write a line to standard error; where nobody can read it, the command goes on all the same."""
    with suppress(AttributeError, OSError, ValueError):  # none, on a full disk, closed
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def complain(error: Exception) -> None:
    """Write an error in one line to standard error."""
    note("error: " + " ".join(as_options(str(error)).split()))


def note_unfinished(result: Generation) -> None:
    """Say that an answer ended before it began, where it did."""
    if not result.token_ids:
        note("note: the answer ended before its first token; a later --deadline lets it begin")
    elif not result.answered:
        remedy = {
            "stop": "ask again",
            "length": "a larger --max-new-tokens, or none, lets it go on",
            "deadline": "a later --deadline lets it go on",
        }.get(result.finish_reason, "ask again")
        note(f"note: the answer ended inside the model's reasoning, after {len(result.token_ids)} tokens; {remedy}")


def write_json(value: Any) -> None:
    """Write a value as indented JSON; bytes are lists of numbers."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=list)
    write((text if _can_show(text) else json.dumps(value, indent=2, default=list)) + "\n")


def mark(state: str) -> str:
    """Return the symbol of a state, or its name where the terminal has no such character."""
    symbol = MARKS[state]
    return symbol if _can_show(symbol) else state


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def write_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Write a table; columns whose title begins with ">" are numbers, set to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(file=sys.stdout, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a pipe has no width, and a folded line cannot be searched
    console.print(table)


def write_lines(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Write a table of which every row is one line and nothing is cut, so that names can be copied and searched for.

    On a terminal the last columns are left out where a line has no room for them. Titles are as in ``write_table``.
    """
    widths = [max(map(len, column)) for column in zip([c.lstrip(">") for c in columns], *rows, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    shown = max(1, sum(sum(widths[: n + 1]) + 2 * n <= room for n in range(len(widths))))
    right = [column.startswith(">") for column in columns]
    write(title + "\n")
    for row in [[c.lstrip(">") for c in columns], *rows]:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row[:shown], widths, right, strict=False)
        ]
        write("  ".join(cells).rstrip() + "\n")


def size(nbytes: int) -> str:
    """Return a number of bytes in words, such as "1.2 GB"."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if nbytes >= 10**power:
            return (
                f"{nbytes / 10**power:.3g} {unit}"
                if nbytes < 10 ** (power + 3)
                else f"{nbytes / 10**power:,.0f} {unit}"
            )
    return f"{nbytes} B"


def count(number: int) -> str:
    """Return a large number in words, such as "596 M"."""
    return _scaled(number).strip()


def _scaled(number: int) -> str:
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {unit}"
    return f"{number} "


class _Notes(logging.Handler):
    """Shows log records as lines; standard error is looked up each time, for tests replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        note(("note: " if record.levelno >= logging.WARNING else "") + as_options(record.getMessage()))


@contextmanager
def notes(*, verbose: bool) -> Generator[None]:
    """Show what pio logs while the context is open: warnings, and with ``verbose``, or ``say_more``, the rest."""
    logger, handler = logging.getLogger("pio"), _Notes()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    say_more(verbose)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def say_more(wanted: bool) -> None:
    """Show, where it is wanted, what is loaded and compiled."""
    if wanted:
        logging.getLogger("pio").setLevel(logging.INFO)
