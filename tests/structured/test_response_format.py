"""What may be given as ``response_format``, and what is refused before a model sees it."""

from __future__ import annotations

import enum
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from pio.engine.sampling_params import SamplingParams
from pio.errors import ConfigError, RefusedAnswerError
from pio.structured.finished_format import FinishedFormat
from pio.structured.response_format import ResponseFormat
from pio.structured.schema_size import MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES
from pio.structured.schema_work import MAX_PATTERNS


class Color(enum.Enum):
    red = "red"
    blue = "blue"


class Part(BaseModel):
    color: Color
    size: int = 3


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Thing(BaseModel):
    parts: list[Part]
    rest: Open


class Odd(BaseModel):
    lock: Callable[[int], int]


class Looped(BaseModel):
    @classmethod
    def model_json_schema(cls, *args: Any, **fields: Any) -> dict[str, Any]:
        return LOOP


class Listed(BaseModel):
    @classmethod
    def model_json_schema(cls, *args: Any, **fields: Any) -> Any:
        return ["a"]


KEPT: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}


class Kept(BaseModel):
    @classmethod
    def model_json_schema(cls, *args: Any, **fields: Any) -> dict[str, Any]:
        return KEPT


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    "given",
    [
        SCHEMA,
        {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": SCHEMA}},
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        {"type": "json_schema", "json_schema": SCHEMA},
        {"type": "json_schema", "name": "it", "schema": SCHEMA},
    ],
)
def test_a_schema_may_come_in_every_form(given: Any) -> None:
    found = ResponseFormat.of(given)
    assert (found.kind, json.loads(found.source), found.model) == ("json", SCHEMA, None)


def test_other_forms() -> None:
    assert ResponseFormat.of({"type": "json_object"}) == ResponseFormat("json", '{"type": "object"}')
    assert ResponseFormat.of("regex:a+") == ResponseFormat("regex", "a+")
    assert ResponseFormat.of(("yes", "nö")) == ResponseFormat("choice", '["yes", "nö"]')
    assert ResponseFormat.of({"type": "grammar", "grammar": 'start: "a"'}) == ResponseFormat("grammar", 'start: "a"')
    assert ResponseFormat.of({"enum": ("a", "b")}).source == '{"enum": ["a", "b"]}'


def test_a_class_has_no_keys_that_it_would_drop() -> None:
    found = ResponseFormat.of(Thing)
    schema = json.loads(found.source)
    assert found.model is Thing and schema["additionalProperties"] is False
    assert schema["$defs"]["Part"]["additionalProperties"] is False
    assert schema["$defs"]["Open"]["additionalProperties"] is True


def test_a_schema_that_a_class_keeps_stays_as_it_is() -> None:
    assert json.loads(ResponseFormat.of(Kept).source) == {**KEPT, "additionalProperties": False}
    assert "additionalProperties" not in KEPT


def test_the_field_keeps_what_was_read() -> None:
    params = SamplingParams(response_format=SCHEMA)
    assert params.response_format == ResponseFormat.of(SCHEMA)
    assert SamplingParams.merge(None, params, seed=3).response_format is params.response_format
    assert SamplingParams.merge(None, None, response_format=None).response_format is None
    assert "response_format" in SamplingParams.model_json_schema()["properties"]


def nested(levels: int, key: str = "items") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {key: found}
    return found


LOOP: dict[str, Any] = {"type": "array"}
LOOP["items"] = LOOP
DOUBLED: dict[str, Any] = {"type": "integer"}
for _ in range(40):  # a trillion values, in forty objects
    DOUBLED = {"anyOf": [DOUBLED, DOUBLED]}


PATTERN = {"type": "string", "pattern": "a.*b"}


def chain(keyword: str) -> dict[str, Any]:
    """Patterns that all hold for one text, by way of definitions that name the next."""
    further = [{"$ref": f"#/$defs/a{i + 1}"} for i in range(13)]
    defs = [{"pattern": f"a.*{i}", **(ref if keyword == "$ref" else {"allOf": [ref]})} for i, ref in enumerate(further)]
    return {"$defs": {f"a{i}": found for i, found in enumerate([*defs, {}])}, "$ref": "#/$defs/a0"}


def links(count: int, around: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Definitions of which each names the next."""
    defs = {f"a{i}": around({"$ref": f"#/$defs/a{i + 1}"}) for i in range(count)}
    return {"$defs": {**defs, f"a{count}": {}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    "given",
    [
        links(30, lambda ref: {"type": "array", "items": ref}),
        {
            "$defs": {f"a{i}": {"enum": [i]} for i in range(900)},
            "anyOf": [{"$ref": f"#/$defs/a{i}"} for i in range(900)],
        },
        {"anyOf": [{"pattern": f"a.*{i}"} for i in range(40)]},
        {"properties": {f"p{i}": {"pattern": f"a.*{i}"} for i in range(40)}},
        {"anyOf": [{"properties": {"a": {"pattern": f"a.*{i}"}}} for i in range(40)]},
        {"$defs": {"a": {"pattern": "x", "properties": {"a": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"},
        {"properties": {f"p{i}": {"anyOf": [PATTERN, {"type": "null"}]} for i in range(500)}},
        {"enum": [f"v{i}" for i in range(5000)]},
    ],
)
def test_what_is_large_in_proportion_is_taken(given: dict[str, Any]) -> None:
    assert json.loads(ResponseFormat.of(given).source) == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "response_format=3 cannot be used: expected a pydantic class, a JSON schema"),
        (True, "cannot be used"),
        (b"regex:a", "cannot be used"),
        (int, "cannot be used"),
        (Part(color=Color.red), "cannot be used"),
        ({"yes", "no"}, "cannot be used"),
        ("json", "begins with 'regex:'"),
        ("regex:", "begins with 'regex:'"),
        ("regex:\ud800", "lone surrogate"),
        ([], "at least one"),
        (["a", ""], "none empty"),
        (["a", "a"], "none twice"),
        (["a", 1], "the texts to choose from"),
        ([f"{i}" for i in range(10_001)], "10001 choices, at most 10000"),
        ({}, "asks for nothing"),
        ({"type": "text"}, "leave response_format out"),
        ({"type": "json_object", "schema": SCHEMA}, "'schema' is no field of this form"),
        ({"type": "json_schema"}, "expected a dict at json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "it"}}, "expected a dict at json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA, "stric": True}}, "'stric' is no field"),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}, "name": "it"}, "'name' is no field"),
        ({"type": "json_schema", "json_schema": {"schema": "{}"}}, "expected a dict at json_schema.schema"),
        ({"type": "grammar"}, "expected the text of a Lark grammar"),
        ({"type": "grammar", "grammar": 'start: a[temperature=0.5]\na: "b"'}, "temperature as a sampling field"),
        ({"type": "grammar", "grammar": 'start: %json {"x-guidance": {"lenient": true}}'}, "x-guidance"),
        ({"x-guidance": {"lenient": True}, **SCHEMA}, "says x-guidance"),
        ({"enum": [1.5, float("nan")]}, "nan, which is no JSON"),
        ({"enum": [{1, 2}]}, "which is no JSON"),
        ({1: "integer"}, "the key 1; keys of JSON are texts"),
        (Odd, "Odd has no JSON schema"),
        (nested(MAX_DEPTH), f"deeper than {MAX_DEPTH} levels"),
        (nested(10_000), f"deeper than {MAX_DEPTH} levels"),
        (LOOP, "or holds itself"),
        (Looped, "or holds itself"),
        (Listed, "Listed has no JSON schema .*it is a list"),
        (DOUBLED, f"deeper than {MAX_DEPTH} levels|more than {MAX_VALUES} values"),
        ({"enum": list(range(MAX_VALUES))}, f"more than {MAX_VALUES} values"),
        ({"const": "x" * MAX_CHARACTERS}, f"at most {MAX_CHARACTERS} can be used"),
        ("regex:" + "x" * (MAX_CHARACTERS + 1), f"at most {MAX_CHARACTERS} can be used"),
        ({"patternProperties": {f"^a{i}": {} for i in range(142)}}, "patternProperties has too many parts"),
        ({"properties": {f"a{i}": {} for i in range(2001)}}, "properties has too many parts"),
        ({"anyOf": [{"const": i} for i in range(2001)]}, "anyOf has too many parts"),
        ({"allOf": [PATTERN] + [{"pattern": f"a.*{i}"} for i in range(MAX_PATTERNS)]}, "pattern stands more than 12"),
        (links(3000, lambda ref: {"type": "array", "items": ref}), "over [0-9]+ levels"),
        (links(160, lambda ref: ref), "over 151 levels, at most 150"),
        (links(60, lambda ref: {"type": "object", "properties": {"a": ref}}), "over [0-9]+ levels"),
        (links(3000, lambda ref: {"anyOf": [ref, {"$ref": "#/$defs/a0"}]}), "over [0-9]+ levels"),
        (chain("$ref"), "pattern stands more than 12"),
        (chain("allOf"), "pattern stands more than 12"),
        ({"allOf": [{"properties": {"a": {"items": {"pattern": f"a{i}"}}}} for i in range(13)]}, "pattern stands more"),
        (
            {"allOf": [{"anyOf": [{"pattern": f"{i}{j}"} for j in range(2)]} for i in range(13)]},
            "pattern stands more|too much of it holds at once",
        ),
        (
            {"type": "grammar", "grammar": "start: A\nA: " + " & ".join(f"/a.*{i}/" for i in range(14))},
            "operators & and ~",
        ),
    ],
)
def test_what_is_no_format_is_refused_by_name(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        SamplingParams(response_format=given)
    assert "response_format" in str(caught.value) and len(str(caught.value)) < 600


def test_depth_at_the_border() -> None:
    assert ResponseFormat.of(nested(MAX_DEPTH - 1)).kind == "json"


def test_a_deep_schema_needs_no_deep_stack() -> None:
    caught: list[BaseException] = []

    def refuse() -> None:
        try:
            ResponseFormat.of(nested(100_000))
        except ConfigError as error:
            caught.append(error)

    thread = threading.Thread(target=refuse)
    thread.start()
    thread.join()
    assert len(caught) == 1


@pytest.mark.parametrize(
    "fields", [{"ignore_eos": True}, {"include_stop": True}, {"min_new_tokens": 3}, {"min_length": 3}]
)
def test_what_contradicts_a_shape(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(fields))}=.* contradicts response_format"):
        SamplingParams(response_format=["yes", "no"], **fields)


@pytest.mark.parametrize("least", [{"min_new_tokens": 3}, {"min_length": 3}])
def test_how_long_answers_are_by_default_gives_way_to_a_shape(least: dict[str, Any]) -> None:
    """What a folder says of all answers; what the caller says contradicts, by whichever name and in whichever way."""
    for params, fields in (
        ({"response_format": ["yes", "no"]}, {}),
        (None, {"response_format": ["yes", "no"]}),
        (SamplingParams(response_format=["yes", "no"]), {"seed": 3}),
    ):
        merged = SamplingParams.merge(least, params, **fields)
        assert (merged.min_new_tokens, merged.min_length) == (0, 0) and merged.response_format is not None
        for name in ("min_new_tokens", "min_length"):
            with pytest.raises(ConfigError, match=f"{name}=2 contradicts response_format"):
                SamplingParams.merge(least, params, **fields, **{name: 2})
    (name, value), *_ = least.items()
    for params in (None, {"response_format": None}, SamplingParams(response_format=None, seed=1)):
        assert getattr(SamplingParams.merge(least, params), name) == value


def test_a_number_that_python_cannot_hold_is_not_made_infinite() -> None:
    finished = FinishedFormat(ResponseFormat.of({"type": "array"}), "[1, -1e999]")
    with pytest.raises(RefusedAnswerError, match=r"Python's json refuses it all the same: '-1e999' is larger than any"):
        finished.value()
    assert FinishedFormat(ResponseFormat.of({"type": "array"}), "[1, -1e99]").value() == [1, -1e99]
