"""Tool calls: the forms in which clients send them, and how those that mean nothing are refused."""

import json
from typing import Any

import pytest

from pio.errors import ConfigError
from pio.text.arguments import Arguments
from pio.text.chat_template import ChatTemplate
from pio.text.tool_calls import checked_calls


def call(arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"function": {"name": "f", "arguments": arguments}, **fields}


@pytest.mark.parametrize("given", [None, "", " \n", "{}", " { } ", {}])
def test_calls_without_arguments(given: Any) -> None:
    assert checked_calls([call(given)], "calls")[0]["function"]["arguments"] == {}


def test_what_belongs_to_the_stream_is_left_out() -> None:
    found = checked_calls([call('{"a": 1}', index=0, id="x", type=None)], "calls")
    assert found == [{"function": {"name": "f", "arguments": {"a": 1}}, "id": "x"}]


REFUSED = [
    ("f", "calls is a str; a list of dicts"),
    (["f"], "calls is a list; a list of dicts"),
    ([{}], r"calls\[0\] names no function"),
    ([{"function": {"arguments": {}}}], r"calls\[0\] names no function"),
    ([{"function": "f"}], r"calls\[0\] names no function"),
    ([call({}), {"type": "custom", "custom": {"name": "f", "input": "x"}}], r'calls\[1\]\["type"\] is .custom.'),
    ([call("{"), call({})], r'calls\[0\]\["function"\]\["arguments"\] is .\{., which is no JSON'),
    ([call('{"days": 1e999}')], r"which is no JSON \('1e999' is larger than any number\)"),
    ([call('{"days": -Infinity}')], r"which is no JSON \(-Infinity is no JSON\)"),
    ([call({}), call("city: Oslo")], r'calls\[1\]\["function"\]\["arguments"\].*no JSON.*into the content'),
    ([call("[1]")], "a JSON object was expected"),
    ([call(json.dumps('{"a": 1}'))], "a JSON object was expected"),
    ([call(7)], "is 7; a dict or its JSON text was expected"),
    ([call('{"a":' * 100 + "1" + "}" * 100)], "nested deeper than 64 levels"),
    ([call('{"a":' * 100_000 + "1" + "}" * 100_000)], "nested deeper than 64 levels"),
]  # fmt: skip


@pytest.mark.parametrize(("calls", "expected"), REFUSED, ids=[text for _, text in REFUSED])
def test_refused(calls: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as error:
        checked_calls(calls, "calls")
    assert len(str(error.value)) < 500


def test_an_error_names_message_and_call() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call("{")]}]
    with pytest.raises(ConfigError, match=r'messages\[1\]\["tool_calls"\]\[0\]\["function"\]\["arguments"\]'):
        ChatTemplate("x").render(messages)


EACH = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}BODY{% endfor %}{% endfor %}"
VALUES = {"city": "Zürich", "days": 2}
COMPACT = '{"city":"Zürich","days":2}'
WRITTEN = json.dumps(VALUES, ensure_ascii=False)
# A template's way with arguments, and what it makes of a dict and of JSON text.
WAYS = {
    "is-text": ("{% if A is string %}{{ A }}{% else %}{{ A | tojson }}{% endif %}", WRITTEN, COMPACT),
    "is-text-by-name": ("{% set a = A %}{% if a is not string %}{{ a | tojson }}{% else %}{{ a }}{% endif %}",
                        WRITTEN, COMPACT),
    "is-text-in-macro": ("{% macro w(x) %}{{ x if x is string else x | tojson }}{% endmacro %}{{ w(A) }}",
                         WRITTEN, COMPACT),
    "json": ("{{ A | tojson }}", WRITTEN, WRITTEN),
    "whole-call": ("{{ c | tojson }}", json.dumps(call(VALUES), ensure_ascii=False),
                   json.dumps(call(VALUES), ensure_ascii=False)),
    "items": ("{% for k, v in A.items() %}{{ k }}={{ v }};{% endfor %}", "city=Zürich;days=2;", "city=Zürich;days=2;"),
    "items-filter": ("{% for k, v in A | items %}{{ k }}={{ v }};{% endfor %}", "city=Zürich;days=2;",
                     "city=Zürich;days=2;"),
    "keys": ("{% for k in A %}{{ k }}={{ A[k] }};{% endfor %}", "city=Zürich;days=2;", "city=Zürich;days=2;"),
    "walks-or-text": ("{% if A is mapping %}{% for k, v in A | dictsort %}{{ k }}={{ v }};{% endfor %}"
                      "{% elif A is string %}{{ A }}{% endif %}", "city=Zürich;days=2;", "city=Zürich;days=2;"),
    "values-are-text": ("{% for k, v in A | items %}{{ v if v is string else v | tojson }};{% endfor %}",
                        "Zürich;2;", "Zürich;2;"),
    "field": ("{{ A.city }}{{ A['days'] }}", "Zürich2", "Zürich2"),
    "written": ("{{ A }}", WRITTEN, COMPACT),
    "added": ("{{ '<' + A + '>' }}", f"<{WRITTEN}>", f"<{COMPACT}>"),
    "joined": ("{{ '<' ~ A ~ '>' }}", f"<{WRITTEN}>", f"<{COMPACT}>"),
    "filtered": ("{{ A | string | trim }}", WRITTEN, COMPACT),
    "formatted": ("{{ '<%s>' % A }}{{ '<{}>'.format(A) }}", f"<{WRITTEN}>" * 2, f"<{COMPACT}>" * 2),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_arguments_are_what_a_template_takes_them_for(way: str) -> None:
    body, of_dict, of_text = WAYS[way]
    template = ChatTemplate(EACH.replace("BODY", body.replace("A", "c.function.arguments")))
    for given, wanted in ((VALUES, of_dict), (COMPACT, of_text)):
        assert template.render([{"role": "assistant", "content": "", "tool_calls": [call(given)]}]) == wanted


def test_templates_do_not_reach_into_arguments() -> None:
    for source in (
        "{{ messages[0].tool_calls[0].function.arguments._text }}",
        "{{ messages[0].tool_calls[0].x.__class__ }}",
    ):
        with pytest.raises(Exception, match="internals"):
            ChatTemplate(source).render([{"role": "assistant", "content": "", "tool_calls": [call(COMPACT, x={})]}])


def test_arguments_write_themselves_once() -> None:
    assert str(Arguments({"a": "é"})) == '{"a": "é"}'
    assert str(Arguments({"a": 1}, '{ "a":1 }')) == '{ "a":1 }'
    assert json.dumps(Arguments({"a": 1}, '{ "a":1 }')) == '{"a": 1}'
