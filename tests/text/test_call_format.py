"""Which format a chat template writes, calls that go back into conversations, and answers that begin with one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from recorded_answers import CODE, TOOLS, function, hermes, pairs, read

from pio.plugin.registry import manifests
from pio.text.calling.call_format import FORMATS, format_of
from pio.text.calling.toolbox import Toolbox
from pio.text.chat_template import ChatTemplate

CHECKPOINTS = Path(__file__).parents[2] / ".." / "shared" / "checkpoints"
REAL = {
    "qwen3-0.6b": "hermes",
    "qwen3-4b-instruct-2507": "hermes",
    "qwen3-vl-2b-instruct": "hermes",
    "qwen3-coder-30b-a3b-instruct": "qwen3_coder",
    "qwen3-coder-next": "qwen3_coder",
    "glm-4.7-flash": "glm",
}
ASK = {"role": "user", "content": "What is the weather?"}


def real(name: str) -> ChatTemplate:
    folder = CHECKPOINTS / name
    if not folder.is_dir():
        pytest.skip("../shared/checkpoints is not there")
    return ChatTemplate.from_folder(folder)


@pytest.mark.parametrize("name", REAL)
def test_the_format_of_a_published_template_is_found(name: str) -> None:
    found = format_of(real(name))
    assert found is not None and found.name == REAL[name]


@pytest.mark.parametrize("name", REAL)
def test_plugins_name_the_format_of_their_checkpoints(name: str) -> None:
    from pio.plugin.manifest import import_object

    manifest = next(m for m in manifests().values() if name in (repo.split("/")[1].lower() for repo in m.checkpoints))
    assert import_object(manifest.plugin).call_format == REAL[name]


WRITTEN = """{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}CALL{% endfor %}
{% endfor %}"""
CALL = '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>'
UNKNOWN = "<|call|>{{ c.function.name }}({{ c.function.arguments | tojson }})"
INSISTS = "{% if messages[-1].tool_calls %}{{ raise_exception('a result is missing') }}{% endif %}"
ALTERED = "[TOOL]{{ c.function.name }}{{ c.function.arguments | tojson }}{{ '<tool_call>' }}"


@pytest.mark.parametrize(
    ("call", "before", "form"),
    [(CALL, "", "hermes"), (CALL, INSISTS, "hermes"), (UNKNOWN, "", None), (ALTERED, "", None), ("", "", None)],
)
def test_the_format_of_a_fine_tune(call: str, before: str, form: str | None) -> None:
    template = ChatTemplate(before + "{{ tools }}" + WRITTEN.replace("CALL", call))
    found = format_of(template)
    assert (found and found.name) == form


def test_a_template_without_tools_has_no_format() -> None:
    for source in ("{% for m in messages %}{{ m.content }}{% endfor %}", "{{ broken", "{{ raise_exception('no') }}"):
        assert format_of(ChatTemplate(source)) is None
    assert format_of(ChatTemplate(None)) is None


@pytest.mark.parametrize("name", REAL)
def test_calls_come_back_as_they_were_written(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Parsed calls, as they are, in a message that the template renders: the same text as the model's."""
    form = REAL[name]
    if form == "hermes":
        written = [hermes("write", '{"path": "a", "content": "é\\n<b>\\"", "options": {"x": [1, null, true]}}')]
        written.append(hermes("get_weather", '{"city": "Paris", "days": 3}'))
    else:
        write = function if form == "qwen3_coder" else pairs
        written = [write("write", path="a", content=CODE, options='{"x": [1, null, true]}'), write("get_current_time")]
    between = "" if form == "glm" else "\n"
    answer = "I look. " + between + between.join(written)
    text, calls, _ = read(form, [answer])
    assert [call.malformed for call in calls] == [None, None]
    turn = {"role": "assistant", "content": text, "tool_calls": calls}
    with caplog.at_level(logging.WARNING, "pio"):
        prompt = real(name).render([ASK, turn, {"role": "tool", "content": "sunny"}], tools=TOOLS)
    assert between.join(written) in prompt and text in prompt
    assert not caplog.records
    again = real(name).render(
        [ASK, {**turn, "tool_calls": tuple(calls)}, {"role": "tool", "content": "sunny"}], tools=TOOLS
    )
    assert again == prompt


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("tool", [None, "get_weather", "get_current_time"])
def test_the_beginning_of_a_call_is_one(form: str, tool: str | None) -> None:
    begun = FORMATS[form].begin(Toolbox(TOOLS), tool)
    calls = {
        "hermes": [hermes("get_weather", '{"city": "Paris"}'), hermes("get_current_time", "{}")],
        "qwen3_coder": [function("get_weather", city="Paris"), function("get_current_time")],
        "glm": [pairs("get_weather", city="Paris"), pairs("get_current_time")],
    }[form]
    fits = [call for call in calls if tool is None or tool in call]
    assert fits and all(call.startswith(begun) for call in fits)
    assert all(not call.startswith(begun) for call in calls if call not in fits)
