"""Inputs on which other parsers of tool calls fail; each test is named after what went wrong there."""

from __future__ import annotations

import json

import pytest
from recorded_answers import CODE, HERMES, PARIS, TIME, TOOLS, Found, check, function, hermes, pairs, read

from pio.text.calling.call_format import FORMATS
from pio.text.calling.splitter import CallSplitter
from pio.text.calling.toolbox import Toolbox


def block(inside: str) -> str:
    return f"<tool_call>\n<function=get_weather>\n{inside}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("inside", "arguments", "problem"),
    [
        ("<parameter=\ncity>\nParis\n</parameter>\n", {}, "a parameter has no name"),
        ("<parameter=city\nParis\n</parameter>\n", {"city": "Paris"}, "'>' is missing behind <parameter="),
        ("<parameter==city>\nParis\n</parameter>\n", {"city": "Paris"}, "a name is written as '=city'"),
        ("<parameter=city=>\nParis\n</parameter>\n", {"city": "Paris"}, "a name is written as 'city='"),
        ('<parameter="city">\nParis\n</parameter>\n', {"city": "Paris"}, "a name is written as '\"city\"'"),
        ("<parameter=>\nParis\n</parameter>\n", {}, "a parameter has no name"),
        ("<parameter=></parameter>\n", {}, "a parameter has no name"),
        ("<parameter=city</parameter>\n", {"city": ""}, "'>' is missing behind <parameter="),
    ],
)
def test_broken_tags_of_parameters_make_a_stream_that_differs(inside: str, arguments: object, problem: str) -> None:
    answer = block(inside) + " ok"
    _, calls, kinds = read("qwen3_coder", [answer])
    assert [(call.name, call.arguments) for call in calls] == [("get_weather", arguments)]
    assert problem in calls[0].malformed and calls[0].raw == block(inside)
    assert read("qwen3_coder", list(answer))[1:] == (calls, kinds)


def test_one_parameter_without_a_bracket_takes_all_calls_along() -> None:
    broken = block("<parameter=city\nParis\n</parameter>\n")
    answer = f"{function('get_current_time')}\n{broken}\n{function('get_weather', city='Paris')}"
    bad = ("get_weather", {"city": "Paris"}, "'>' is missing")
    check("qwen3_coder", answer, Found("", [TIME, bad, PARIS]))


def test_a_parameter_that_is_not_closed_swallows_the_next() -> None:
    answer = block("<parameter=city>\nParis\n<parameter=days>\n3\n</parameter>\n")
    expected = ("get_weather", {"city": "Paris", "days": 3}, "</parameter> is missing behind 'city'")
    check("qwen3_coder", answer, Found("", [expected]))
    answer = block("<parameter=days>\n3\n</parameter>\n<parameter=city>\nParis\n") + "ok"
    check("qwen3_coder", answer, Found("ok", [("get_weather", {"city": "Paris", "days": 3}, "behind 'city'")]))


@pytest.mark.parametrize("tail", ["", "\n", "\n" + function("get_current_time")])
def test_a_closing_tag_that_is_left_out_fails_the_request(tail: str) -> None:
    then = [TIME] if "time" in tail else []
    whole = function("get_weather", city="Paris")
    check("qwen3_coder", whole.removesuffix("\n</tool_call>") + tail, Found("", [PARIS, *then]))
    for cut in ("\n</function>\n</tool_call>", "\n</parameter>\n</function>\n</tool_call>"):
        text, calls, _ = read("qwen3_coder", [whole.removesuffix(cut) + tail])
        assert text == "" and calls[0].name == "get_weather" and calls[0].raw.startswith(whole.removesuffix(cut))
    tail = "\n" + hermes("get_current_time", "{}") if then else tail
    check("hermes", HERMES["one"][0].removesuffix("\n</tool_call>") + tail, Found("", [PARIS, *then]))


def test_several_tags_in_one_delta_lose_parameters() -> None:
    whole = function("get_weather", city="Rome", days="3") + function("get_current_time")
    for size in range(1, len(whole)):
        assert read("qwen3_coder", [whole[:size], whole[size:]]) == read("qwen3_coder", [whole])
    assert [call.arguments for call in read("qwen3_coder", [whole])[1]] == [{"city": "Rome", "days": 3}, {}]


@pytest.mark.parametrize(("form", "write"), [("qwen3_coder", function), ("glm", pairs)])
def test_a_date_where_an_integer_is_declared_drops_the_call(form: str, write) -> None:
    problem = "argument 'days': found '2026-01-02', expected integer"
    given = {"city": "Paris", "days": "2026-01-02"}
    check(form, write("get_weather", **given), Found("", [("get_weather", given, problem)]))


@pytest.mark.parametrize(("form", "write"), [("qwen3_coder", function), ("glm", pairs)])
def test_an_object_in_pythons_notation_or_broken(form: str, write) -> None:
    python = write("write", path="a", options="{'a': True, 'b': [None, (1, 'x')]}")
    check(form, python, Found("", [("write", {"path": "a", "options": {"a": True, "b": [None, [1, "x"]]}}, None)]))
    broken = {"path": "a", "options": '{"a": 1'}
    check(
        form, write("write", **broken), Found("", [("write", broken, "'options': found '{\"a\": 1', expected object")])
    )
    twice = write("write", options='{"a": 1, "a": 2}')
    check(form, twice, Found("", [("write", {"options": {"a": 2}}, "'a' is given twice")]))


@pytest.mark.parametrize(
    "pieces", [["<tool_call>get_current_time</tool_call>"], [*"<tool_call>get_current_time</tool_call>"]]
)
def test_a_call_without_arguments_is_none_at_all(pieces: list[str]) -> None:
    _, calls, _ = read("glm", pieces)
    assert [(call.name, call.arguments, call.malformed) for call in calls] == [TIME]


def test_a_key_without_its_tag() -> None:
    answer = "<tool_call>get_weather\ncity</arg_key><arg_value>Paris</arg_value></tool_call>"
    check("glm", answer, Found("", [("get_weather", {"city": "Paris"}, "<arg_key> is missing")]))


@pytest.mark.parametrize(("form", "write"), [("qwen3_coder", function), ("glm", pairs)])
def test_arguments_are_serialised_twice(form: str, write) -> None:
    """A string is never JSON of itself; and what the model wrote twice is read as what it is."""
    check(form, write("write", path='{"a": 1}'), Found("", [("write", {"path": '{"a": 1}'}, None)]))
    check(form, write("write", path='"a"'), Found("", [("write", {"path": '"a"'}, None)]))
    once = write("write", options=json.dumps(json.dumps({"a": "ü"})))
    check(form, once, Found("", [("write", {"options": {"a": "ü"}}, None)]))


def test_the_last_brace_is_missing_behind_a_number() -> None:
    arguments = '{"city": "Rome", "days": 3}'
    whole = hermes("get_weather", arguments)
    for cut in range(1, 20):
        _, calls, _ = read("hermes", [whole[:-cut], whole[-cut:]])
        assert [call.arguments for call in calls] == [json.loads(arguments)]


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("hermes", hermes("run_in_terminal", "{}")),
        ("qwen3_coder", function("run_in_terminal")),
        ("glm", pairs("run_in_terminal")),
    ],
)
def test_a_name_is_told_before_it_is_whole(form: str, answer: str) -> None:
    tools = [*TOOLS, {"name": "run_in"}, {"name": "run"}]
    for cut in range(len(answer)):
        _, calls, _ = read(form, [answer[:cut], answer[cut:]], tools)
        assert [(call.name, call.malformed) for call in calls] == [("run_in_terminal", None)]


def test_a_parameter_that_is_closed_twice() -> None:
    answer = block("<parameter=city>\nParis\n</parameter>\n</parameter>\n")
    check("qwen3_coder", answer, Found("", [PARIS]))


def test_the_function_leaks_before_it_is_known_to_be_one() -> None:
    answer = "Now\n" + function("get_weather", city="Paris").removeprefix("<tool_call>\n")
    splitter = CallSplitter(FORMATS["qwen3_coder"].body, Toolbox(TOOLS), "")
    told = [splitter.push(character) for character in answer]
    assert "".join(text for parts in told for kind, text, _ in parts if kind == "text") == "Now"
    check("qwen3_coder", answer, Found("Now", [PARIS]))
    check("qwen3_coder", "see <function=other>", Found("see <function=other>", []))


@pytest.mark.parametrize(("form", "write"), [("qwen3_coder", function), ("glm", pairs)])
def test_a_large_argument_takes_quadratic_time(form: str, write) -> None:
    """A million characters one by one: with anything quadratic in them this would not end."""
    content = CODE * (1_000_000 // len(CODE))
    _, calls, _ = read(form, list(write("write", content=content)))
    assert calls[0].arguments == {"content": content} and calls[0].malformed is None
    _, calls, _ = read("hermes", list(hermes("write", json.dumps({"content": content}))))
    assert calls[0].arguments == {"content": content} and calls[0].malformed is None


@pytest.mark.parametrize("text", ["\n" * 300_000, "<" * 300_000, "<tool_call" * 30_000, "</parameter>\n" * 30_000])
def test_long_stretches_of_what_is_held_back(text: str) -> None:
    for form in FORMATS:
        assert read(form, list(text))[0] == text
        assert read(form, [*"<tool_call>", *text])[1][0].raw.strip() == ("<tool_call>" + text).strip()


@pytest.mark.parametrize("closed", [True, False])
def test_arguments_of_hostile_depth(closed: bool) -> None:
    """Each format with a call of its own; what is too deep stays the text that the model wrote."""
    deep = "[" * 100_000 + "]" * (100_000 if closed else 0)
    for form, write, parameter, kind in (
        ("qwen3_coder", function, "options", "object"),
        ("glm", pairs, "lines", "array"),
        ("glm", pairs, "options", "object"),
    ):
        (call,) = read(form, [write("write", **{parameter: deep})])[1]
        assert (call.name, call.arguments) == ("write", {parameter: deep})
        assert call.malformed == f"argument {parameter!r}: found '{'[' * 57}...', expected {kind}"
    (call,) = read("hermes", [hermes("write", deep)])[1]
    assert (call.name, call.arguments) == ("write", {})
    told = "it is no JSON (it is nested too deep)" if closed else "its JSON object does not end"
    assert call.malformed == told


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not(number: str) -> None:
    """None of them becomes an infinite number; that is what Python's reader makes of them."""
    problem = f"argument 'days': found {number!r}, expected integer"
    for form, write in (("qwen3_coder", function), ("glm", pairs)):
        given = {"city": "Paris", "days": number}
        check(form, write("get_weather", **given), Found("", [("get_weather", given, problem)]))
        inside = {"options": f'{{"a": {number}}}'}
        check(form, write("write", **inside), Found("", [("write", inside, "expected object")]))
    told = "is larger than any number" if "e" in number else "is no JSON"
    check("hermes", hermes("get_weather", f'{{"days": {number}}}'), Found("", [("get_weather", {}, told)]))
    check("glm", f'<tool_call>get_weather\n{{"days": {number}}}</tool_call>', Found("", [("get_weather", {}, told)]))


def test_a_whole_number_that_is_written_with_a_fraction() -> None:
    """3.0 is an integer in every format, and an int then; where any number will do it stays as it is."""
    tools = [{"name": "f", "parameters": {"properties": {"n": {"type": "integer"}, "x": {"type": "number"}}}}]
    written = {
        "qwen3_coder": function("f", n="3.0", x="3.0"),
        "glm": pairs("f", n="3.0", x="3.0"),
        "hermes": hermes("f", '{"n": 3.0, "x": 3.0}'),
    }
    for form, answer in written.items():
        (call,) = read(form, [answer], tools)[1]
        assert call.malformed is None and repr(call.arguments) == "{'n': 3, 'x': 3.0}", form
    (call,) = read("hermes", [hermes("f", '{"n": 3.5}')], tools)[1]
    assert call.arguments == {"n": 3.5} and call.malformed == "argument 'n': found 3.5, expected integer"


@pytest.mark.parametrize("cut", ["</function>\n</tool_call>\n", "</function>\n</tool_call>\n<tool_call>\n"])
def test_a_function_that_is_not_closed_takes_the_next_along(cut: str) -> None:
    """The next begins with a tag that its declared name is part of, or that is not known."""
    both = function("get_weather", city="Paris") + "\n" + function("get_current_time")
    assert cut in both
    check("qwen3_coder", both.replace(cut, "", 1), Found("", [PARIS, TIME]))
    other = both.replace("get_current_time", "get_time").replace(cut, "", 1)
    check("qwen3_coder", other, Found("", [PARIS, ("get_time", {}, "there is no tool 'get_time'")]))


def test_numbers_of_hostile_length() -> None:
    for value in ("9" * 10_000, "1e999999", "NaN", "-Infinity", "0x10", "1_000", "٣"):
        _, calls, _ = read("qwen3_coder", [function("get_weather", city="a", days=value)])
        assert calls[0].arguments["days"] == value and "expected integer" in calls[0].malformed
