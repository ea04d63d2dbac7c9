"""Values by schema: what a text means where a tool says which types it takes."""

from __future__ import annotations

from typing import Any

import pytest

from pio.errors import ConfigError
from pio.text.calling.tool_choice import ToolChoice
from pio.text.calling.toolbox import Toolbox
from pio.text.calling.values import decode, types_of

ROOT: dict[str, Any] = {
    "$defs": {"Unit": {"enum": ["C", "F"]}, "Deep": {"$ref": "#/$defs/Deep"}, "a/b~": {"type": "array"}}
    | {"Ways": [{"type": "null"}, {"type": "boolean"}]},
}


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["integer", "null"]}, {"integer", "null"}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"string", "null"}),
        ({"oneOf": [{"type": "string"}, {}]}, set()),
        ({"allOf": [{"$ref": "#/$defs/Unit"}, {}]}, {"string"}),
        ({"enum": [1, 2.5, None, True, [], {}]}, {"integer", "number", "null", "boolean", "array", "object"}),
        ({"const": 3}, {"integer"}),
        ({"$ref": "#/$defs/Unit"}, {"string"}),
        ({"$ref": "#/$defs/a~1b~0"}, {"array"}),
        ({"$ref": "#/$defs/Ways/1"}, {"boolean"}),
        ({"$ref": "#/$defs/Ways/2"}, set()),
        ({"$ref": "#/$defs/Deep"}, set()),
        ({"$ref": "#/$defs/None"}, set()),
        ({"$ref": "https://example.org/schema"}, set()),
        ({}, set()),
        (True, set()),
        (None, set()),
    ],
)
def test_types_of_a_schema(schema: Any, types: set[str]) -> None:
    assert types_of(schema, ROOT) == types


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("5", "string", "5"),
        (" a ", "string", " a "),
        ("null", "string", "null"),
        (" 5\n", "integer", 5),
        ("5.0", "integer", 5),
        ("-0", "integer", 0),
        ("5", "number", 5),
        ("-1.5e-3", "number", -0.0015),
        ("true", "boolean", True),
        ("False", "boolean", False),
        ("None", "null", None),
        ("null", "string null", None),
        ("None", "string null", "None"),
        ("None", "integer null", None),
        ("5", "string integer", 5),
        ("five", "string integer", "five"),
        ("[1]", "string array", [1]),
        ("[1", "string array", "[1"),
        ('{"a": {"b": []}}', "object", {"a": {"b": []}}),
        ("{'a': (1, 2)}", "object", {"a": [1, 2]}),
        ("5", "", 5),
        ("x", "", "x"),
        ("None", "", "None"),
        ("[true]", "", [True]),
        ('"x"', "", '"x"'),
        ("", "string", ""),
    ],
)
def test_a_text_means(text: str, types: str, value: Any) -> None:
    found = decode(text, frozenset(types.split()))
    assert found == (value, None) and type(found[0]) is type(value)


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("5.5", "integer"),
        ("yes", "boolean"),
        ("1", "boolean"),
        ("", "integer"),
        ("[1]", "object"),
        ("{}", "array"),
        ("{1: 2, b}", "object"),
        ("{'a': nan}", "object"),
        ("{'a': 1j}", "object"),
        ("0", "null"),
        ("true", "integer"),
        ("[" * 100 + "]" * 100, "array"),
        ("1e999", "number"),
        ("-1e999", "integer"),
        ("[1e999]", "array"),
        ("NaN", "number"),
    ],
)
def test_what_does_not_fit_stays_text_and_is_told(text: str, types: str) -> None:
    value, problem = decode(text, frozenset(types.split()))
    assert value == text and problem is not None and types in problem


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        ([{"type": "function", "function": {"name": "a b"}}], r"tools\[0\] has the name 'a b'"),
        ([{"name": "a"}, {"name": ""}], r"tools\[1\] has the name ''"),
        ([{"name": "a<b"}], r"tools\[0\] has the name 'a<b'"),
        ([{"function": {}}], r"tools\[0\] has the name None"),
        ([{"function": "f"}], r"tools\[0\] has the name None"),
        ([{"name": "a" * 257}], r"at most 256 characters"),
        ([{"name": "a"}, {"function": {"name": "a"}}], r"tools\[1\] has the name 'a', as one before it"),
        ([{"name": "a", "parameters": [1]}], r"tools\[0\] has the parameters a list"),
    ],
)
def test_tools_that_cannot_be_called(tools: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Toolbox(tools)


def test_ways_to_choose() -> None:
    assert ToolChoice.of(None) == ToolChoice.of("auto") == ToolChoice()
    assert ToolChoice.of("none") == ToolChoice(shows=False)
    assert ToolChoice.of("required") == ToolChoice(forced=True)
    named = ToolChoice(forced=True, tool="f")
    assert ToolChoice.of({"name": "f"}) == ToolChoice.of({"type": "function", "function": {"name": "f"}}) == named
    for wrong in ("f", "any", 1, {}, {"name": 1}, {"type": "custom", "name": "f"}, {"function": "f"}, ["f"], True):
        with pytest.raises(ConfigError, match=r'tool_choice is .*; "auto", "none", "required"'):
            ToolChoice.of(wrong)
