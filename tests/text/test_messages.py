"""Conversations: what is accepted, and how the rest is refused."""

from collections import OrderedDict
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from pio.errors import ConfigError
from pio.text.messages import check_messages, check_tools
from pio.text.plain_data import plain


class Role(StrEnum):
    USER = "user"


def test_a_copy_of_plain_data() -> None:
    given = [
        {"role": Role.USER, "content": ({"type": "text", "text": "a"},), "extra": MappingProxyType({"x": [1, 2.5]})}
    ]
    found = check_messages(tuple(given))
    assert found == [{"role": "user", "content": [{"type": "text", "text": "a"}], "extra": {"x": [1, 2.5]}}]
    assert type(found[0]["role"]) is str
    assert type(found[0]["extra"]) is dict


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_found_under_each_of_its_names(name: str) -> None:
    found = check_messages([OrderedDict(role="assistant", content="a", **{name: "why"})])[0]
    assert (found["reasoning_content"], found["thinking"]) == ("why", "why")


CALL = {"function": {"name": "f", "arguments": {}}}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": (CALL,)},
        {"role": "assistant", "content": None, "reasoning_content": "hm"},
        {"role": "anything", "content": ""},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
    ],
)
def test_accepted(message: dict[str, Any]) -> None:
    assert check_messages([message])[0].items() >= {"role": message["role"]}.items()


REFUSED = [
    (None, "messages must be a list"),
    ("Hi", "messages must be a list"),
    ({"role": "user", "content": "a"}, "messages must be a list"),
    ([], "empty"),
    (["Hi"], r"messages\[0\] is 'Hi'"),
    ([{"role": "user", "content": "a"}, None], r"messages\[1\]"),
    ([{"content": "a"}], r'messages\[0\] has no "role"'),
    ([{"role": 3, "content": "a"}], r'messages\[0\]\["role"\] is 3'),
    ([{"role": "", "content": "a"}], r'\["role"\]'),
    ([{"role": "user"}], r'messages\[0\]\["content"\] is missing'),
    ([{"role": "user", "content": None}], r'messages\[0\]\["content"\] is None'),
    ([{"role": "assistant", "content": None, "tool_calls": []}], r'\["content"\] is None'),
    ([{"role": "user", "content": 5}], r'messages\[0\]\["content"\] is 5'),
    ([{"role": "user", "content": b"a"}], r'\["content"\] is a bytes'),
    ([{"role": "user", "content": ["a"]}], r"\[\"content\"\]\[0\] is 'a'"),
    ([{"role": "user", "content": [{"text": "a"}]}], r'\["content"\]\[0\]\["type"\]'),
    ([{"role": "user", "content": [{"type": "text"}]}], r'\["content"\]\[0\]\["text"\] is None'),
    ([{"role": "user", "content": "a", "tool_calls": {"a": 1}}], r'\["tool_calls"\]'),
    ([{"role": "user", "content": [{"type": "image"}]}], r"reads text only"),
    (
        [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}],
        "write its text as a part of the type 'text'",
    ),
    ([{"role": "user", "content": [{"type": "thinking", "thinking": "hm"}]}], "ignore; .*reasoning_content"),
    ([{"role": "user", "content": [{"type": "tool_use", "name": "f"}]}], "ignore; .*tool_calls"),
    ([{"role": "user", "content": [{"type": "tool_result"}]}], 'ignore; .*the role "tool"'),
    ([{"role": "assistant", "content": None, "refusal": "no"}], r'\["refusal"\] is .no.*write its text as the content'),
    ([{"role": "assistant", "content": "a", "partial": True}], "continue_final_message=True"),
    (
        [{"role": "assistant", "content": "a", "tool_calls": [CALL], "function_call": {"name": "f"}}],
        "give the calls once",
    ),
    ([{"role": "user", "content": "a", "tool_calls": ["f"]}], r'\["tool_calls"\]'),
    ([{"role": "assistant", "content": "a", "reasoning_content": 7}], "reasoning_content"),
    ([{"role": "user", "content": "a", 5: 6}], r"messages\[0\] has the key 5"),
    ([{"role": "user", "content": "a", "x": {"y": object()}}], r"messages\[0\]\['x'\]\['y'\] is a object"),
]


@pytest.mark.parametrize(("messages", "expected"), REFUSED)
def test_refused(messages: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_messages(messages)


def test_data_that_holds_itself() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ConfigError, match="64 levels"):
        plain(circle, "tools")


def test_tools() -> None:
    assert check_tools(None) is None
    assert check_tools([]) == []
    assert check_tools([{"type": "function"}]) == [{"type": "function"}]
    with pytest.raises(ConfigError, match=r"tools\[1\] is a Python function; describe it as a JSON schema"):
        check_tools([{}, len])
    with pytest.raises(ConfigError, match=r"documents must be a list of dicts"):
        check_tools("x", "documents")
    with pytest.raises(ConfigError, match=r"tools\[0\] must be a dict, found 'f'"):
        check_tools(["f"])


def test_fields_without_a_value_are_left_out() -> None:
    message = {"role": "assistant", "content": "a", "tool_calls": [], "refusal": None, "audio": None, "name": None}
    assert check_messages([message]) == [{"role": "assistant", "content": "a"}]


def test_what_a_model_takes_besides_text() -> None:
    messages = [{"role": "user", "content": [{"image": "x"}, {"type": "text", "text": "a"}]}]
    assert check_messages(messages, {"text", "image"}) == messages
    with pytest.raises(ConfigError, match="'video'; this model reads image and text only"):
        check_messages([{"role": "user", "content": [{"type": "video"}]}], {"text", "image"})
