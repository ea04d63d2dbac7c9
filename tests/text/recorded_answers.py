"""Answers as models write them, format by format, and what is to be found in them; by hand, not by the code."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from pio.text.calling.call_format import FORMATS
from pio.text.calling.toolbox import Toolbox


def tool(name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "It works.", "parameters": parameters}}


STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
TOOLS = [
    tool("get_weather", ("city",), city=STRING, days=INTEGER, unit={"enum": ["C", "F"]}),
    tool("write", ("path",), path=STRING, content=STRING, options={"type": "object"}, lines={"type": "array"}),
    tool("run_in_terminal", command=STRING, timeout=NUMBER, background={"type": "boolean"}),
    tool("get_current_time"),
    tool("note", text={"anyOf": [STRING, {"type": "null"}]}, level={"$ref": "#/$defs/Level"}, any={}),
]
TOOLS[4]["function"]["parameters"]["$defs"] = {"Level": {"type": "integer", "enum": [1, 2]}}


class Found(NamedTuple):
    """What is in an answer: the text without calls, and of each call name, arguments and a part of its problem."""

    text: str
    calls: list[tuple[str, dict[str, Any], str | None]]


def read(form: str, pieces: list[str], tools: list[dict[str, Any]] = TOOLS) -> tuple[Any, ...]:
    """Text and calls of an answer that comes in pieces, by the splitter; what holds for every answer is checked."""
    from pio.text.calling.splitter import CallSplitter

    splitter = CallSplitter(FORMATS[form].body, Toolbox(tools), "salt")
    parts = [part for piece in pieces for part in splitter.push(piece)]
    parts += splitter.flush()
    assert "".join(text for _, text, _ in parts) == "".join(pieces)
    assert all(text or call for _, text, call in parts)
    calls = [call for _, _, call in parts if call is not None]
    told = "".join(text for kind, text, _ in parts if kind == "tool_call")
    assert "".join(call.raw for call in calls) == told
    kinds: list[tuple[str, list[str]]] = []
    for kind, text, call in parts:
        if text and not (kinds and kinds[-1][0] == kind):
            kinds.append((kind, []))
        if text:
            kinds[-1][1].append(text)
        if call:
            kinds.append(("call", [call.id]))
    json.dumps([call.arguments for call in calls])
    return (
        "".join(text for kind, text, _ in parts if kind == "text"),
        calls,
        [(kind, "".join(texts)) for kind, texts in kinds],
    )


def check(form: str, answer: str, expected: Found) -> None:
    text, calls, _ = read(form, [answer])
    assert text == expected.text
    assert [(call.name, call.arguments) for call in calls] == [(name, given) for name, given, _ in expected.calls]
    for call, (_, _, problem) in zip(calls, expected.calls, strict=True):
        assert (call.malformed is None) if problem is None else problem in (call.malformed or ""), call.malformed


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def function(name: str, **values: str) -> str:
    inside = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{inside}</function>\n</tool_call>"


def pairs(name: str, **values: str) -> str:
    inside = "".join(f"<arg_key>{key}</arg_key><arg_value>{value}</arg_value>" for key, value in values.items())
    return f"<tool_call>{name}{inside}</tool_call>"


PARIS = ("get_weather", {"city": "Paris"}, None)
ROME = ("get_weather", {"city": "Rome", "days": 3}, None)
TIME = ("get_current_time", {}, None)
CODE = 'if a < b:\n\tprint("é </tool_call> \\n")\n'

HERMES: dict[str, tuple[str, Found]] = {
    "none": ("No call at all.\n\n", Found("No call at all.\n\n", [])),
    "empty": ("", Found("", [])),
    "one": (hermes("get_weather", '{"city": "Paris"}'), Found("", [PARIS])),
    "around": (
        "Let me look. \n\n" + hermes("get_weather", '{"city": "Paris"}') + "\n\nDone.\n",
        Found("Let me look.\n\nDone.\n", [PARIS]),
    ),
    "parallel": (
        hermes("get_weather", '{"city": "Paris"}') + "\n" + hermes("get_weather", '{"city": "Rome", "days": 3}') + "\n",
        Found("", [PARIS, ROME]),
    ),
    "between": (
        "a" + hermes("get_current_time", "{}") + " b " + hermes("get_weather", '{"city": "Paris"}') + "c",
        Found("a bc", [TIME, PARIS]),
    ),
    "no arguments": ('<tool_call>{"name": "get_current_time"}</tool_call>', Found("", [TIME])),
    "nested tags": (
        hermes("write", json.dumps({"path": "a", "content": f"<tool_call>{CODE}</tool_call>"})),
        Found("", [("write", {"path": "a", "content": f"<tool_call>{CODE}</tool_call>"}, None)]),
    ),
    "escapes": (
        hermes("write", r'{"path": "\u00e9\ud83d\ude00\"\\", "content": "\\"}'),
        Found("", [("write", {"path": 'é😀"\\', "content": "\\"}, None)]),
    ),
    "raw line ends": (
        hermes("write", '{"path": "a", "content": "one\ntwo\r\n\tthree"}'),
        Found("", [("write", {"path": "a", "content": "one\ntwo\r\n\tthree"}, None)]),
    ),
    "CRLF": (
        'Hm.\r\n<tool_call>\r\n{"name": "get_weather",\r\n "arguments": {"city": "Paris"}}\r\n</tool_call>\r\n',
        Found("Hm.", [PARIS]),
    ),
    "several in a block": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n{"name": "get_current_time", '
        '"arguments": {}}\n</tool_call>',
        Found("", [PARIS, TIME]),
    ),
    "arguments as text": (hermes("get_weather", r'"{\"city\": \"Paris\"}"'), Found("", [PARIS])),
    "unknown name": (hermes("rm", '{"x": 1}'), Found("", [("rm", {"x": 1}, "no tool 'rm'")])),
    "no name": (hermes("", "{}"), Found("", [("", {}, "names no tool")])),
    "duplicate keys": (
        hermes("get_weather", '{"city": "Rome", "city": "Paris"}'),
        Found("", [("get_weather", {"city": "Paris"}, "'city' is given twice")]),
    ),
    "wrong type": (
        hermes("get_weather", '{"city": "Paris", "days": "soon"}'),
        Found("", [("get_weather", {"city": "Paris", "days": "soon"}, "expected integer")]),
    ),
    "not closed at the end": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}',
        Found("", [PARIS]),
    ),
    "next begins": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n' + hermes("get_current_time", "{}"),
        Found("", [PARIS, TIME]),
    ),
    "cut off": (
        'So: <tool_call>\n{"name": "get_weather", "arguments": {"city": "Par',
        Found("So:", [("get_weather", {}, "the answer ended within the call")]),
    ),
    "cut off in a tag": ("So: <tool_ca", Found("So: <tool_ca", [])),
    "cut off behind it": ("<tool_call>", Found("", [("", {}, "the answer ended within the call")])),
    "too many brackets": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}}\n</tool_call>ok',
        Found("ok", [("get_weather", {"city": "Paris"}, "never opened")]),
    ),
    "too few": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}\n</tool_call>ok',
        Found("ok", [("get_weather", {}, "does not end")]),
    ),
    "a quote is missing": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris}}\n</tool_call>ok',
        Found("ok", [("get_weather", {}, "does not end")]),
    ),
    "no JSON": ("<tool_call>get_weather(Paris)</tool_call> ok", Found("ok", [("", {}, "no JSON object")])),
    "Python": (
        "<tool_call>{'name': 'get_weather', 'arguments': {}}</tool_call>",
        Found("", [("", {}, "no JSON")]),
    ),
    "nothing": ("<tool_call></tool_call>", Found("", [("", {}, "empty")])),
    "closed twice": (hermes("get_current_time", "{}") + "\n</tool_call>\nok", Found("ok", [TIME])),
    "a closing tag alone": ("a </tool_call> b", Found("a </tool_call> b", [])),
}

FUNCTIONS: dict[str, tuple[str, Found]] = {
    "one": (function("get_weather", city="Paris"), Found("", [PARIS])),
    "around": ("Look.\n\n" + function("get_weather", city="Rome", days="3") + "\nDone", Found("Look.\nDone", [ROME])),
    "no arguments": (function("get_current_time"), Found("", [TIME])),
    "parallel": (
        function("get_weather", city="Paris") + "\n" + function("get_weather", city="Rome", days="3"),
        Found("", [PARIS, ROME]),
    ),
    "several in a block": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
        "<function=get_current_time>\n</function>\n</tool_call>",
        Found("", [PARIS, TIME]),
    ),
    "in one line": (
        "<tool_call><function=get_weather><parameter=city>Paris</parameter></function></tool_call>",
        Found("", [PARIS]),
    ),
    "values of all types": (
        function("run_in_terminal", command="5", timeout="1e1", background="True")
        + function("write", path="true", options='{"a": [1, null]}', lines="[]"),
        Found(
            "",
            [
                ("run_in_terminal", {"command": "5", "timeout": 10.0, "background": True}, None),
                ("write", {"path": "true", "options": {"a": [1, None]}, "lines": []}, None),
            ],
        ),
    ),
    "values without a type": (
        function("note", text="null", level="2", any="1.5") + function("note", text="None", any="x"),
        Found(
            "", [("note", {"text": None, "level": 2, "any": 1.5}, None), ("note", {"text": "None", "any": "x"}, None)]
        ),
    ),
    "lines": (
        function("write", path="a", content=f"\n{CODE}\n"),
        Found("", [("write", {"path": "a", "content": f"\n{CODE}\n"}, None)]),
    ),
    "CRLF": (
        "Hm.\r\n" + function("write", path="a", content="x\r\ny").replace("\n", "\r\n").replace("\r\r", "\r"),
        Found("Hm.", [("write", {"path": "a", "content": "x\r\ny"}, None)]),
    ),
    "a call as a value": (
        function("write", path="a", content=function("write", path="b", content="c\n</tool_call>")),
        Found("", [("write", {"path": "a", "content": function("write", path="b", content="c\n</tool_call>")}, None)]),
    ),
    "tags as a value": (
        function(
            "write", path="a", content="x</parameter>, <function= </function> <tool_call> </tool_call> <parameter=y>"
        ),
        Found(
            "",
            [
                (
                    "write",
                    {
                        "path": "a",
                        "content": "x</parameter>, <function= </function> <tool_call> </tool_call> <parameter=y>",
                    },
                    None,
                )
            ],
        ),
    ),
    "without the outer tag": (
        "Now <function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>\nok",
        Found("Now\nok", [PARIS]),
    ),
    "written about": ("It is <function=name> and <function=", Found("It is <function=name> and <function=", [])),
    "not closed": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>",
        Found("", [PARIS]),
    ),
    "cut off in a value": (
        "<tool_call>\n<function=get_weather>\n<parameter=days>\n3\n</parameter>\n<parameter=city>\nPar",
        Found("", [("get_weather", {"days": 3}, "the answer ended within the call")]),
    ),
    "cut off behind a value": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n",
        Found("", [("get_weather", {"city": "Paris"}, "the answer ended within the call")]),
    ),
    "cut off in a name": (
        "<tool_call>\n<function=get_wea",
        Found("", [("get_wea", {}, "the answer ended within the call")]),
    ),
    "given twice": (
        function("get_weather", city="Rome").replace(
            "</function>", "<parameter=city>\nParis\n</parameter>\n</function>"
        ),
        Found("", [("get_weather", {"city": "Paris"}, "'city' is given twice")]),
    ),
    "no function": ("<tool_call>\nget_weather\n</tool_call>ok", Found("ok", [("", {}, "names no function")])),
    "unknown name": (function("rm", x="1"), Found("", [("rm", {"x": 1}, "no tool 'rm'")])),
    "text between": (
        "<tool_call>\n<function=get_weather>\nso\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        Found("", [("get_weather", {"city": "Paris"}, "text between")]),
    ),
}

PAIRS: dict[str, tuple[str, Found]] = {
    "one": (pairs("get_weather", city="Paris"), Found("", [PARIS])),
    "around": ("Look.\n" + pairs("get_weather", city="Rome", days="3") + "Done", Found("Look.Done", [ROME])),
    "lines between": (
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
        Found("", [PARIS]),
    ),
    "parallel": (
        pairs("get_weather", city="Paris")
        + pairs("get_current_time")
        + "\n"
        + pairs("get_weather", city="Rome", days="3"),
        Found("", [PARIS, TIME, ROME]),
    ),
    "values of all types": (
        pairs("run_in_terminal", command="5", timeout="2", background="false")
        + pairs("write", path="{}", options="{}", lines='["a"]'),
        Found(
            "",
            [
                ("run_in_terminal", {"command": "5", "timeout": 2, "background": False}, None),
                ("write", {"path": "{}", "options": {}, "lines": ["a"]}, None),
            ],
        ),
    ),
    "lines": (
        pairs("write", path="a", content=f"\r\n{CODE}\n"),
        Found("", [("write", {"path": "a", "content": f"\r\n{CODE}\n"}, None)]),
    ),
    "a call as a value": (
        pairs("write", path="a", content=pairs("write", path="b")),
        Found("", [("write", {"path": "a", "content": pairs("write", path="b")}, None)]),
    ),
    "tags as a value": (
        pairs("write", path="a", content="x</arg_value>, </tool_call>, <arg_key>y"),
        Found("", [("write", {"path": "a", "content": "x</arg_value>, </tool_call>, <arg_key>y"}, None)]),
    ),
    "JSON": (hermes("get_weather", '{"city": "Paris"}'), Found("", [PARIS])),
    "a name and JSON": ('<tool_call>get_weather\n{"city": "Paris"}\n</tool_call>', Found("", [PARIS])),
    "next begins": (
        pairs("get_weather", city="Paris").removesuffix("</tool_call>") + pairs("get_current_time"),
        Found("", [PARIS, TIME]),
    ),
    "a key without its end": (
        "<tool_call>get_weather<arg_key>city<arg_value>Paris</arg_value></tool_call>",
        Found("", [("get_weather", {"city": "Paris"}, "</arg_key> is missing")]),
    ),
    "no value": (
        "<tool_call>get_weather<arg_key>days</arg_key><arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>",
        Found("", [("get_weather", {"city": "Paris"}, "'days' has no value")]),
    ),
    "a value is not closed": (
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris<arg_key>days</arg_key><arg_value>3</arg_value>"
        "</tool_call>",
        Found("", [("get_weather", {"city": "Paris", "days": 3}, "missing behind 'city'")]),
    ),
    "the last value is not closed": (
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</tool_call>",
        Found("", [("get_weather", {"city": "Paris"}, "missing behind 'city'")]),
    ),
    "cut off": (
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Par",
        Found("", [("get_weather", {}, "the answer ended within the call")]),
    ),
    "cut off in a name": ("<tool_call>get_cur", Found("", [("get_cur", {}, "the answer ended within the call")])),
    "given twice": (
        pairs("get_weather", city="Rome").replace(
            "</tool_call>", "<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>"
        ),
        Found("", [("get_weather", {"city": "Paris"}, "'city' is given twice")]),
    ),
    "nothing": ("<tool_call></tool_call>ok", Found("ok", [("", {}, "names no tool")])),
}

ANSWERS = {
    (form, name): recorded
    for form, answers in (("hermes", HERMES), ("qwen3_coder", FUNCTIONS), ("glm", PAIRS))
    for name, recorded in answers.items()
}
