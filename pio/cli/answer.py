"""An answer of ``pio generate`` as it comes, calls of tools included."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from pio.cli.console import write
from pio.system import HERE

if TYPE_CHECKING:
    from pio.engine.generation import TokenEvent
    from pio.text.calling.tool_call import ToolCall


def show_answer(events: Iterable[TokenEvent], behind: str = "") -> float | None:
    """Write an answer, calls as lines of JSON, and the line end that it lacks.

    Args:
        events: Of one answer.
        behind: What stands behind it.

    Returns:
        Seconds from the start of the process to its first text; None where it has none.
    """
    first, last, called = None, "", False
    for event in events:
        if event.text and first is None:
            first = HERE.seconds_since_start()
        if event.call is not None:
            write(("\n" if last and not last.endswith("\n") else "") + call_line(event.call))
            last, called = "\n", True
        elif event.text and event.kind != "tool_call" and not (called and event.kind == "markup"):
            write(event.text)
            last = event.text
    write(behind + ("" if (behind or last).endswith("\n") else "\n"))
    return first


def call_line(call: ToolCall) -> str:
    """Return a call as a line of JSON; the raw text only of one that is malformed."""
    shown = {name: value for name, value in asdict(call).items() if call.malformed or name not in ("raw", "malformed")}
    return json.dumps(shown) + "\n"
