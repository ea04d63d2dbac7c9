"""Long but ordinary conversations are within the budget of templates with the habits that published ones have."""

import re
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pio.errors import CheckpointError
from pio.text.chat_template import ChatTemplate

USER = {"role": "user", "content": "Go"}


def called(count: int) -> list[dict[str, Any]]:
    """Return a conversation with tool calls and their results."""
    found = [USER]
    for i in range(count):
        call = {"id": f"c{i}", "type": "function", "function": {"name": f"tool{i % 7}", "arguments": {"x": i}}}
        found.append({"role": "assistant", "content": "", "tool_calls": [call]})
        found.append({"role": "tool", "tool_call_id": f"c{i}", "content": f"result of {i}"})
    return found


LOOKS_BACK = """
{%- for m in messages %}
    {%- set found = namespace(name='none') %}
    {%- if m.role == 'tool' %}
        {%- for earlier in messages %}
            {%- for call in earlier.tool_calls or [] %}
                {%- if call.id == m.tool_call_id %}
                    {%- set found.name = call.function.name %}
                {%- endif %}
            {%- endfor %}
        {%- endfor %}
    {%- endif %}
    {{- '<' + m.role + ' ' + found.name + '>' + m.content }}
    {%- for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}
{%- endfor %}"""
BY_CHARACTER = """
{%- for m in messages %}
    {%- set ns = namespace(pictures=0) %}
    {%- for part in m.content %}
        {%- if part.type == 'image' %}{% set ns.pictures = ns.pictures + 1 %}{% endif %}
    {%- endfor %}
    {{- m.role ~ ns.pictures ~ m.content }}
{%- endfor %}"""
GROWS = """
{%- set ns = namespace(text='') %}
{%- for m in messages %}
    {%- set ns.text = ns.text ~ '<' ~ m.role ~ '>' ~ m.content ~ '\\n' %}
{%- endfor %}
{{- ns.text }}"""
ADDS = GROWS.replace("~", "+")
EVERY_THREE = (
    "{% for a in messages %}{% for b in messages %}{% for c in messages %}{% endfor %}{% endfor %}{% endfor %}"
)
TURNS = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i}"} for i in range(2500)]
CASES = {
    "looks-back": (LOOKS_BACK, called(400)),
    "by-character": (BY_CHARACTER, [{"role": "user", "content": "lorem ipsum " * 12_000}]),
    "grows": (GROWS, TURNS),
    "adds": (ADDS, TURNS),
}


@pytest.mark.parametrize("name", CASES)
def test_long_conversations(name: str) -> None:
    source, messages = CASES[name]
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    assert ChatTemplate(source).render(messages) == plain.render(messages=messages)


def test_what_is_said_where_it_is_too_much() -> None:
    with pytest.raises(CheckpointError) as error:
        ChatTemplate(EVERY_THREE, where="here/").render(called(60))
    text = str(error.value)
    assert re.search(r"here/ was stopped: it works more than \d+ steps for 121 messages", text)
    assert "messages; give fewer or shorter messages, or render the prompt yourself" in text
    assert "trust" not in text
