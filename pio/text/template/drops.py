"""Finds what a chat template left out: a message that the model would never see must not vanish in silence.

Templates leave out roles that they do not know, system messages that do not come first, tool calls, tools. Looking for
each text in the prompt shows for ordinary conversations that all is there. Where a text is not found as it stands,
because the template trims, escapes or moves it, or where finding it proves little, the conversation is rendered again
with marks around every text, and what has lost its marks once more alone: what then changes nothing was left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pio.errors import CheckpointError, ConfigError
from pio.text.arguments import Arguments
from pio.text.template.inputs import Inputs, Place

if TYPE_CHECKING:
    from pio.text.template.facts import TemplateFacts

Render = Callable[[Inputs], str]

_SHORT = 24  # characters; a longer text does not stand in a prompt by chance
_MOST_ELSEWHERE = 1 << 18
_MOST_TRIALS = 4


class Unit(NamedTuple):
    """A text that must reach the model."""

    path: Place
    text: str  # what to look for


def find_dropped(inputs: Inputs, prompt: str, source: str, facts: TemplateFacts, render: Render) -> Place | None:
    """Return where the first text stands that has no effect on the prompt, or None.

    Args:
        inputs: What was rendered.
        prompt: What came of it.
        source: The template.
        facts: Of the template.
        render: Renders other inputs in the same way.
    """
    units = [unit for unit in _units(inputs) if unit.path[0] != "messages" or _is_expected(unit.path, facts)]
    if _all_found(units, inputs, prompt, source):
        return None
    try:
        return next(_without_effect(units, inputs, prompt, render), None)
    except CheckpointError:  # with marks it is more than the template may do; what cannot be told is no error
        return None


def _without_effect(units: list[Unit], inputs: Inputs, prompt: str, render: Render) -> Iterator[Place]:
    mark = "9071"
    while mark in prompt:
        mark += "9071"
    marks = {unit.path: f"{mark}{number:06d}" for number, unit in enumerate(units)}
    try:
        marked = render(inputs.replaced({path: _marked(inputs.get(path), path, mark) for path, mark in marks.items()}))
    except ConfigError:  # the template looks at the text itself: each is tried alone
        marked = ""
    found = set(re.findall(rf"{mark}\d{{6}}", marked))
    lost = [path for path, mark in marks.items() if mark not in found]
    for path in lost[:_MOST_TRIALS]:
        if has_no_effect(inputs, path, marks[path], prompt, render):
            yield path


def _is_expected(path: Place, facts: TemplateFacts) -> bool:
    """Say whether a template can be expected to write this: one that asks for no such thing is no chat template."""
    if not facts.walks_messages:
        return False
    if path[-1] == "name" and "tool_calls" not in facts.words:
        return True
    return ("content" if path[-1] == "text" else path[-1]) in facts.words


def has_no_effect(inputs: Inputs, path: Place, mark: str, prompt: str, render: Render) -> bool:
    """Say whether the prompt stays as it is when a text gets marks.

    Raises:
        CheckpointError: With marks it is more than the template may do.
    """
    try:
        return render(inputs.replaced({path: _marked(inputs.get(path), path, mark)})) == prompt
    except ConfigError:  # the template looks at the text
        return False


def _units(inputs: Inputs) -> Iterator[Unit]:
    for number, tool in enumerate(inputs.tools or ()):
        path = ("function", "name") if isinstance(tool.get("function"), dict) else ("name",)
        found = tool["function"].get("name") if len(path) == 2 else tool.get("name")
        if found and isinstance(found, str):
            yield Unit(("tools", number, *path), found)
    for number, document in enumerate(inputs.documents or ()):
        if document.get("text") and isinstance(document["text"], str):
            yield Unit(("documents", number, "text"), document["text"])
    for number, message in enumerate(inputs.messages):
        yield from _message_units(message, ("messages", number))


def _message_units(message: dict[str, Any], path: Place) -> Iterator[Unit]:
    content = message["content"]
    if isinstance(content, str) and content.strip():
        yield Unit((*path, "content"), content.strip())
    elif isinstance(content, list):
        for number, part in enumerate(cast("list[dict[str, Any]]", content)):
            if part.get("type") == "text" and part["text"].strip():
                yield Unit((*path, "content", number, "text"), part["text"].strip())
    for number, call in enumerate(message.get("tool_calls", ())):
        function = call.get("function", call)
        place = (*path, "tool_calls", number, *(("function",) if "function" in call else ()))
        yield Unit((*place, "name"), function["name"])
        arguments = function["arguments"]
        if arguments:
            first = arguments.lstrip("{ \n\t\r")[:_SHORT] if isinstance(arguments, str) else next(iter(arguments))
            yield Unit((*place, "arguments"), first)


def _all_found(units: list[Unit], inputs: Inputs, prompt: str, source: str) -> bool:
    """Say whether all texts stand in the prompt, one behind the other, and none can be there by chance."""
    roles = {message["role"] for message in inputs.messages}
    elsewhere = "\n".join((source, str(inputs.tools or ""), *roles))
    ends: dict[str, int] = {}  # of what was found of messages, tools and documents
    known: set[str] = set()
    for path, text in units:
        begin = prompt.find(text, ends.get(path[0], 0))
        if begin < 0:
            return False
        ends[path[0]] = begin + len(text)
        if path[-1] in ("content", "text") and len(text) < _SHORT and text not in known:
            if len(elsewhere) > _MOST_ELSEWHERE or text in elsewhere or any(role in text for role in roles):
                return False
            known.add(text)
    return True


def _marked(value: Any, path: Place, mark: str) -> Any:
    if path[-1] != "arguments":
        return f"{mark} {value} {mark}"
    values: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    changed = Arguments({**{name: f"{mark} {old} {mark}" for name, old in values.items()}, mark: mark})
    return str(changed) if isinstance(value, str) else changed
