"""The formats in which models write calls, and which of them a chat template writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pio.errors import CheckpointError, ConfigError
from pio.text.calling.body import OPEN, Body
from pio.text.calling.function_body import FUNCTION, FunctionBody
from pio.text.calling.json_body import JsonBody
from pio.text.calling.pairs_body import KEY, PairsBody
from pio.text.calling.splitter import CallSplitter
from pio.text.calling.toolbox import Toolbox

if TYPE_CHECKING:
    from pio.text.chat_template import ChatTemplate

_NAME, _ASKED = "probe_of_calls", "0f62b9d4e817 asks"
_ARGUMENTS: Final[dict[str, Any]] = {"word": "a b", "count": 3}
_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "None.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string"}, "count": {"type": "integer"}},
            "required": ["word"],
        },
    },
}


@dataclass(frozen=True)
class CallFormat:
    """One way to write calls.

    Attributes:
        name: As plugins name it.
        body: Reads one call.
        any_call: How a call of any tool begins, up to where the tool is named.
        one_call: How a call of one tool begins, with ``{}`` for its name.
        with_arguments: What follows where the tool cannot be called without arguments.
    """

    name: str
    body: type[Body]
    any_call: str
    one_call: str
    with_arguments: str = ""

    def begin(self, toolbox: Toolbox, tool: str | None) -> str:
        """Return how a call of a tool begins, or of any; it ends where a token of every tokenizer may end."""
        if tool is None:
            return self.any_call
        return self.one_call.replace("{}", tool, 1) + (self.with_arguments if toolbox.required(tool) else "")


FORMATS: Final = {
    known.name: known
    for known in (
        CallFormat("hermes", JsonBody, OPEN + '\n{"name":', OPEN + '\n{"name": "{}", "arguments":'),
        CallFormat("qwen3_coder", FunctionBody, f"{OPEN}\n<function", f"{OPEN}\n{FUNCTION}{{}}>\n"),
        CallFormat("glm", PairsBody, OPEN, f"{OPEN}{{}}", KEY),
    )
}


def format_of(template: ChatTemplate) -> CallFormat | None:
    """Return the format in which a chat template writes the calls of an assistant; None where it is none of them.

    A conversation with one call is rendered, and read again in each format: it is the one that finds the call.
    """
    call = {"id": "call_000000", "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
    asked: dict[str, Any] = {"role": "user", "content": _ASKED}
    calling: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [call]}
    told: dict[str, Any] = {"role": "tool", "content": "0", "tool_call_id": "call_000000", "name": _NAME}
    written = ""
    for messages in ([asked, calling], [asked, calling, told]):  # some insist on a result behind each call
        try:
            written = template.render(messages, tools=[_TOOL], add_generation_prompt=False)
            break
        except (ConfigError, CheckpointError):
            continue
    toolbox = Toolbox([_TOOL])
    return next((known for known in FORMATS.values() if _reads(known, toolbox, written.rpartition(_ASKED)[2])), None)


def _reads(known: CallFormat, toolbox: Toolbox, written: str) -> bool:
    """Whether a format finds the one call in a text."""
    splitter = CallSplitter(known.body, toolbox, "")
    calls = [call for _, _, call in [*splitter.push(written), *splitter.flush()] if call is not None]
    return [(call.name, call.arguments, call.malformed) for call in calls] == [(_NAME, _ARGUMENTS, None)]
