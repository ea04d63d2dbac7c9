"""Where the turns of an assistant stand in what a chat template wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pio.errors import CheckpointError, ConfigError
from pio.text.final_message import field_of
from pio.text.messages import REASONING

if TYPE_CHECKING:
    from pio.text.chat_template import ChatTemplate, Conversation

_MARK = "0f62b9d4e817turn"


class Turn(NamedTuple):
    """What a template wrote of one message, without what it puts around all of them.

    Attributes:
        before: Where that begins which the template wrote between this turn and the one before.
        begin: Where the turn begins.
        end: Where it ends.
    """

    before: int
    begin: int
    end: int


def turns_in(
    prompt: str,
    template: ChatTemplate,
    conversation: Conversation,
    indexes: Sequence[int],
    ways: Mapping[str, Any],
) -> list[Turn | None]:
    """Return where the turns of some messages stand in what a template wrote; None for those that are not found.

    Args:
        prompt: The text.
        template: The template.
        conversation: Of which it came.
        indexes: Of the messages, ascending.
        ways: ``add_generation_prompt`` and ``continue_final_message``, as far as they were given.
    """
    field, add = field_of(ways.get("continue_final_message")), ways.get("add_generation_prompt")
    messages, mark = outlined(conversation.messages, indexes, prompt)
    try:
        outline = template.outline(conversation, messages, field is None if add is None else bool(add))
    except (ConfigError, CheckpointError):  # it looks at what messages say
        return [None] * len(indexes)
    open_end = field is not None and indexes[-1] == len(messages) - 1
    return find_turns(prompt, outline, mark, indexes, open_end=open_end)


def outlined(messages: Sequence[Mapping[str, Any]], indexes: Sequence[int], prompt: str) -> tuple[list[Any], str]:
    """Return messages, some of which say nothing but a mark, and what all marks begin with.

    The calls of these are left out. What was thought before them is a mark too, for a template may keep it or not.

    Args:
        messages: Of a conversation, checked.
        indexes: Which of them.
        prompt: What came of them, which has no mark.
    """
    mark = _MARK
    while mark in prompt:
        mark += "7"
    found: list[Any] = [*messages]
    for index in indexes:
        fields = {name: value for name, value in messages[index].items() if name != "tool_calls"}
        fields["content"] = f"{mark}{index}a"
        fields |= {name: f"{mark}{index}r" for name in REASONING if fields.get(name)}
        found[index] = fields
    return found, mark


def find_turns(
    prompt: str, outline: str, mark: str, indexes: Sequence[int], *, open_end: bool = False
) -> list[Turn | None]:
    """Return where the turns of some messages stand in a prompt; None for those that are not found.

    What stands between two marks is what the template writes between two turns whatever they say, so it stands in the
    prompt as well. Whether a stretch is really the turn is for the caller to see: all of them together are the prompt.

    Args:
        prompt: What a template wrote of a conversation.
        outline: What it wrote of the same as ``outlined`` returned it.
        mark: What the marks begin with.
        indexes: Of the messages, ascending.
        open_end: Whether the prompt ends within the last one of them.
    """
    places: list[tuple[int, int]] = []  # of the marks of each turn, from the first one to the last one
    for index in indexes:
        answer, reasoning = outline.find(f"{mark}{index}a"), outline.find(f"{mark}{index}r")
        done = places[-1][1] if places else 0
        if answer < done:
            break
        places.append((reasoning if done <= reasoning < answer else answer, answer + len(f"{mark}{index}a")))
    turns: list[Turn | None] = []
    before = 0
    if places and prompt.startswith(outline[: places[0][0]]):
        begin = places[0][0]
        for number, (_, behind) in enumerate(places):
            last = number == len(places) - 1
            following = outline[behind:] if last else outline[behind : places[number + 1][0]]
            end = _end(prompt, "" if last and open_end else following, begin, last=last)
            if end < 0:
                break
            turns.append(Turn(before, begin, end))
            before, begin = end, end + len(following)
    return turns + [None] * (len(indexes) - len(turns))


def _end(prompt: str, following: str, begin: int, *, last: bool) -> int:
    """Where a turn ends, by what follows it; -1 where that is not there."""
    if not last:
        return prompt.find(following, begin)
    end = len(prompt) - len(following)
    return end if end >= begin and prompt.endswith(following) else -1
