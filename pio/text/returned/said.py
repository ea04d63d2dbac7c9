"""What a message of the assistant says, and whether a text says the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from pio.errors import ConfigError
from pio.text.calling import body
from pio.text.calling.call_format import CallFormat
from pio.text.calling.splitter import CallSplitter
from pio.text.calling.tool_call import ToolCall
from pio.text.calling.toolbox import Toolbox
from pio.text.calling.values import read_json
from pio.text.content_parts import joined
from pio.text.plain_data import is_record, record
from pio.text.reasoning import CLOSE, OPEN
from pio.text.returned.exact_values import ExactToolbox, is_exact
from pio.text.returned.reading import Reading, read_turn

_FIELDS = frozenset(("name", "arguments"))


class SaidCall(NamedTuple):
    """A call of a message.

    Attributes:
        name: The tool.
        arguments: By name.
        raw: How the model wrote it; None where the message does not say, so that name and arguments say all of it.
    """

    name: str
    arguments: dict[str, Any]
    raw: str | None

    def is_written(self, found: ToolCall, form: CallFormat) -> bool:
        """Say whether a call that was found in a text is this one, and says nothing besides."""
        if found.name != self.name or (self.raw is not None and found.raw != self.raw):
            return False
        read = self._read(found.raw, form, Toolbox if self.raw is not None else ExactToolbox)
        if read is None or not _same(read.arguments, self.arguments):
            return False
        return self.raw is not None or (read.malformed is None and not _holds_more(found.raw))

    def _read(self, raw: str, form: CallFormat, kind: type[Toolbox]) -> ToolCall | None:
        """Return the one call that a text is, with values of the types that this one has; None where it is another."""
        properties = {name: {"const": value} for name, value in self.arguments.items()}
        try:
            toolbox = kind([{"name": self.name, "parameters": {"properties": properties}}])
        except ConfigError:  # no tool can have that name
            toolbox = kind([])
        splitter = CallSplitter(form.body, toolbox, "")
        found = [call for _, _, call in [*splitter.push(raw), *splitter.flush()] if call is not None]
        return found[0] if len(found) == 1 else None


class Said(NamedTuple):
    """A message of the assistant.

    Attributes:
        content: Its text; None where it holds more than text.
        reasoning: What was thought before it; None where the message does not say.
        calls: Of tools.
    """

    content: str | None
    reasoning: str | None
    calls: list[SaidCall]

    @classmethod
    def of(cls, checked: Mapping[str, Any], given: Mapping[Any, Any]) -> Said:
        """Read a message.

        Args:
            checked: As ``check_messages`` returns it.
            given: The same as it was given, with what templates do not see.
        """
        content = checked.get("content") or ""
        found: Any = given.get("tool_calls")
        raws = list(map(_raw, cast("Iterable[object]", found))) if isinstance(found, (list, tuple)) else []
        calls: list[SaidCall] = []
        for index, call in enumerate(checked.get("tool_calls", ())):
            function = call.get("function", call)
            raw = raws[index] if index < len(raws) else None
            calls.append(SaidCall(function["name"], dict(function["arguments"]), raw))
        text = joined(cast("list[dict[str, Any]]", content)) if isinstance(content, list) else str(content)
        return cls(text, checked.get("reasoning_content"), calls)

    def reading(self, text: str, form: CallFormat | None) -> Reading | None:
        """Return how a text is taken apart so that it says this message; None where it says anything else.

        Args:
            text: Of an answer.
            form: How calls are written; None where that is not known, or the message has none.
        """
        for inside in (False, True, None):  # an answer does not say whether its prompt opened the reasoning
            found = read_turn(text, inside, form if self.calls else None, (call.name for call in self.calls))
            if self._is(found, form):
                return found
        return None

    def split(self, found: Reading, form: CallFormat | None) -> tuple[Said, Reading] | None:
        """Return the same with the reasoning apart, where the content has it in it, tags and all; None where not.

        Some templates take such a content apart; it is what others have said all along.
        """
        if found.head or CLOSE not in (self.content or ""):
            return None
        inside = not found.text.lstrip().startswith(OPEN)
        apart = read_turn(found.text, inside, form if self.calls else None, (call.name for call in self.calls))
        return self._replace(content=apart.of("text"), reasoning=apart.of("reasoning")), apart

    def is_written(self, found: Reading) -> bool:
        """Say whether a text, which a template wrote of the message, has all of it but the reasoning."""
        calls = [(call.name, {*call.arguments}) for call in found.calls]
        return found.of("text").strip() == (self.content or "").strip() and calls == [
            (call.name, {*call.arguments}) for call in self.calls
        ]

    def _is(self, found: Reading, form: CallFormat | None) -> bool:
        if self.content is None or found.of("text").strip() != self.content.strip():
            return False
        if self.reasoning is not None and found.of("reasoning").strip() != self.reasoning.strip():
            return False
        calls = found.calls
        if not self.calls or form is None:
            return not self.calls and not calls
        return len(calls) == len(self.calls) and all(
            said.is_written(call, form) for said, call in zip(self.calls, calls, strict=True)
        )


def _raw(call: object) -> str | None:
    fields = record(call, "tool_calls") if is_record(call) else None
    raw = None if fields is None else fields.get("raw")
    return raw if isinstance(raw, str) else None


def _holds_more(raw: str) -> bool:
    """Say whether a call that is written as a JSON object has more in it than a name and arguments.

    So it may have where the object stands behind a name, or has the arguments as a text.
    """
    text = raw.strip().removeprefix(body.OPEN).removesuffix(body.CLOSE).strip()
    if not text.startswith("{"):
        return text.partition("\n")[2].lstrip().startswith("{")
    try:
        found, _ = read_json(text)
    except ValueError:
        return True
    if not isinstance(found, dict) or not is_exact(text):
        return True
    fields = cast("dict[str, Any]", found)
    arguments = fields.get("arguments")
    return not fields.keys() <= _FIELDS or (isinstance(arguments, str) and not is_exact(arguments))


def _same(one: Any, other: Any) -> bool:
    """Compare decoded JSON, in which True is no 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        pairs, others = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return pairs.keys() == others.keys() and all(_same(value, others[name]) for name, value in pairs.items())
    if isinstance(one, list) and isinstance(other, list):
        items, found = cast("list[Any]", one), cast("list[Any]", other)
        return len(items) == len(found) and all(map(_same, items, found))
    return bool(one == other)
