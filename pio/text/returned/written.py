"""An answer as OpenAI's interface writes the assistant's messages: plain data, which JSON can hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pio.text.calling.tool_call import ToolCall


def written_message(text: str, reasoning: str | None, calls: Iterable[tuple[ToolCall, bool]]) -> dict[str, Any]:
    """Return the message of an answer.

    Args:
        text: Without reasoning and calls.
        reasoning: Before it; None where there is none.
        calls: In it, and of each whether its name and its arguments say all of it; else its text goes with it as
            ``raw``.
    """
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning_content"] = reasoning
    if written := [_written(call, whole) for call, whole in calls]:
        message["tool_calls"] = written
    return message


def _written(call: ToolCall, whole: bool) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    written = {"id": call.id, "type": "function", "function": function}
    return written if whole else {**written, "raw": call.raw}
