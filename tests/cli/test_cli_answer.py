"""How an answer is written as it comes."""

from __future__ import annotations

import json

import pytest

from pio.cli.answer import show_answer
from pio.engine.generation import TokenEvent
from pio.text.calling.tool_call import ToolCall

CALL = ToolCall("call_1", "clock", {"zone": "UTC"}, "<tool_call>…</tool_call>")
LINE = json.dumps({"id": "call_1", "name": "clock", "arguments": {"zone": "UTC"}}) + "\n"


def event(text: str, kind: str = "text", call: ToolCall | None = None) -> TokenEvent:
    return TokenEvent(0, 1, text, None, kind, 0, call)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("events", "behind", "written"),
    [
        ([], "", "\n"),
        ([event("")], "", "\n"),
        ([event("a"), event("b")], "", "ab\n"),
        ([event("a\n"), event("")], "", "a\n"),
        ([event("a")], "z", "az\n"),
        ([event("a")], "z\n", "az\n"),
        ([event("a\n"), event("b\n")], "z", "a\nb\nz\n"),
        ([event("<think>", "markup"), event("hm", "reasoning"), event("</think>", "markup"), event("a")], "", None),
        ([event("", "tool_call", CALL)], "", LINE),
        ([event("a"), event(CALL.raw, "tool_call", CALL), event("\n", "markup")], "", "a\n" + LINE),
        ([event("", "tool_call", CALL), event("b")], "", LINE + "b\n"),
        ([event("", "tool_call", CALL), event("", "tool_call", CALL)], "", LINE + LINE),
    ],
)
def test_what_is_written(
    capsys: pytest.CaptureFixture[str], events: list[TokenEvent], behind: str, written: str | None
) -> None:
    seconds = show_answer(iter(events), behind)
    assert capsys.readouterr().out == (written or "".join(e.text for e in events) + "\n")
    assert (seconds is None) == (not any(e.text for e in events))
