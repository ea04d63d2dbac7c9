"""Tables as text, in the form in which documents have them too."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown; columns that begin with ``>`` stand to the right."""
    names = [column.removeprefix(">") for column in columns]
    widths = [max(3, *(len(row[i]) for row in (names, *rows))) for i in range(len(names))]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        ]
        return f"| {' | '.join(placed)} |"

    marks = [
        "-" * (width - 1) + ":" if column.startswith(">") else "-" * width
        for width, column in zip(widths, columns, strict=True)
    ]
    return "\n".join([line(names), line(marks), *map(line, rows)])
