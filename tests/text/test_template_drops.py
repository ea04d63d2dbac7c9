"""What a chat template leaves out is an error that names it; what it moves, trims, escapes or merges is none."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pio.errors import ConfigError
from pio.text.chat_template import ChatTemplate

USER = {"role": "user", "content": "What is it?"}
ANSWER = {"role": "assistant", "content": "A cat."}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"at": "it"}}}]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
EACH = "{% for m in messages %}BODY{% endfor %}"
BY_ROLE = EACH.replace(
    "BODY",
    "{% if m.role == 'user' or (m.role == 'system' and loop.first) %}<{{ m.role }}>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<assistant>{{ m.content }}{% endif %}",
)


def refused(source: str, messages: list[dict[str, Any]], match: str, **given: Any) -> None:
    with pytest.raises(ConfigError, match=match):
        ChatTemplate(source).render(messages, **given)


@pytest.mark.parametrize(
    "content", ["Answer in Norwegian only.", "a", "user", "<user>", "What", [{"type": "text", "text": "ok"}]]
)
def test_a_role_that_is_left_out(content: Any) -> None:
    refused(
        BY_ROLE, [{"role": "bot", "content": content}, USER], r"messages\[0\] \(role 'bot'\).* leaves out its content"
    )
    refused(BY_ROLE, [USER, {"role": "bot", "content": content}], r"messages\[1\]")
    refused(BY_ROLE, [{"role": "bot", "content": content}], r"messages\[0\]")
    refused(BY_ROLE, [USER, ANSWER, {"role": "system", "content": content}, USER], r"messages\[2\].*first message")


def test_what_can_be_done_about_it() -> None:
    refused(BY_ROLE, [{"role": "developer", "content": "a"}, USER], 'write it in the role "system"')
    refused(BY_ROLE, [USER, CALL], r"leaves out its tool_calls\[0\].*write the call into the content")
    refused(BY_ROLE, [USER, {"role": "tool", "content": "4"}], "render the prompt yourself")
    only_parts = EACH.replace("BODY", "{% for p in m.content %}{{ p.text }}{% endfor %}")
    refused(only_parts, [USER], r'give its content as \[\{"type": "text"')


@pytest.mark.parametrize(
    ("source", "dropped"),
    [
        (EACH.replace("BODY", "{% if loop.last %}{{ m.content }}{% endif %}"), 0),
        (EACH.replace("BODY", "{% if not loop.last %}{{ m.content }}{% endif %}"), 2),
        (EACH.replace("BODY", "{% if m.role == 'user' %}{{ m.content }}{% endif %}"), 1),
        ("{% for m in messages[1:] %}{{ m.content }}{% endfor %}", 0),
        ("{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ m.content }}{% endfor %}", 1),
        ("{% set mine = messages | rejectattr('role', 'equalto', 'user') | list %}{% for m in mine %}{{ m.content }}"
         "{% endfor %}", 0),
    ],
)  # fmt: skip
def test_turns_that_are_left_out(source: str, dropped: int) -> None:
    refused(source, [USER, ANSWER, USER], rf"messages\[{dropped}\]")


def test_a_text_that_stands_in_the_prompt_by_chance() -> None:
    tools = "{{ tools }}" + BY_ROLE
    refused(tools, [{"role": "bot", "content": "look"}, USER], r"messages\[0\]", tools=[TOOL])
    refused("What is it?" + BY_ROLE, [{"role": "bot", "content": "What is it?"}], r"messages\[0\]")
    refused(BY_ROLE, [{"role": "bot", "content": "is"}, USER], r"messages\[0\]")


WAYS = {
    "as-it-is": "{{ m.content }}",
    "trimmed": "{{ m.content | trim }}",
    "stripped": "{{ m.content.strip() }}",
    "json": "{{ m.content | tojson }}",
    "whole-json": "{{ m | tojson }}",
    "escaped": "{{ m.content | e }}",
    "upper": "{{ m.content | upper }}",
    "url": "{{ m.content | urlencode }}",
    "lines": "{% for line in m.content.splitlines() %}> {{ line }}\n{% endfor %}",
    "words": "{{ m.content.split() | join('_') }}",
    "replaced": "{{ m.content.replace('e', '3') }}",
    "cut": "{{ m.content[:8] }}",
    "cut-in-front": "{{ m.content[-8:] }}",
    "reversed": "{{ m.content | reverse }}",
    "length": "{{ m.content | length }}",
    "without-thoughts": "{{ m.content.split('</think>')[-1].lstrip('\\n') }}",
}
CONTENTS = [
    "Hi",
    "  spaces \n\n",
    '"quoted" & <tagged>\té',
    "a\nb\n\nc",
    "<think>\nwhy\n</think>\n\nbecause",
    "x" * 100,
    "",
]


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_writing_a_content(way: str) -> None:
    template = ChatTemplate(EACH.replace("BODY", WAYS[way]))
    messages = [{"role": "user", "content": content} for content in CONTENTS]
    assert template.render(messages)
    for message in messages:
        template.render([message, USER])
        template.render([USER, message])


MOVED = {
    "system-first": "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
    "backwards": "{% for m in messages[::-1] %}{{ m.content }}{% endfor %}",
    "collected": "{% set ns = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.s = ns.s ~ m.content %}{% else %}{{ m.content }}{% endif %}{% endfor %}{{ ns.s }}",
    "mapped": "{{ messages | map(attribute='content') | join('|') }}",
    "all-json": "{{ messages | tojson }}",
    "written": "{{ messages | string }}",
}


@pytest.mark.parametrize("way", MOVED)
def test_moved_messages(way: str) -> None:
    system = {"role": "system", "content": "ok"}
    for messages in ([system, USER], [USER, system, USER], [USER, ANSWER, system, USER, system]):
        assert ChatTemplate(MOVED[way]).render(messages)


def test_reasoning_of_earlier_turns_may_go() -> None:
    source = EACH.replace(
        "BODY",
        "{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}",
    )
    thought = {**ANSWER, "reasoning_content": "It has whiskers and a tail."}
    assert "whiskers" not in ChatTemplate(source).render([USER, thought, USER])
    assert ChatTemplate(BY_ROLE).render([{"role": "assistant", "content": "<think>only</think>"}, USER])


def test_a_refusal_for_marks_is_no_drop() -> None:
    source = EACH.replace(
        "BODY", "{% if m.content not in 'yes no' %}{{ raise_exception('say yes or no') }}{% endif %}x"
    )
    assert ChatTemplate(source).render([{"role": "user", "content": "yes"}]) == "x"


def test_what_is_too_much_with_marks_is_no_error() -> None:
    """The budget of a short conversation is 16 million characters, and marks make these contents longer."""
    source = EACH.replace(
        "BODY", "{% for i in range(2000) %}{% set x = m.content * 1000 %}{% endfor %}{{ m.content | e }}"
    )
    assert ChatTemplate(source).render([{"role": "user", "content": "<1>"}]) == "&lt;1&gt;"


def test_tools_and_documents_that_are_left_out() -> None:
    sometimes = "{% if tools and messages | length > 2 %}{{ tools }}{% endif %}" + BY_ROLE
    refused(sometimes, [USER], "tools: the chat template of this model has no place for tools", tools=[TOOL])
    assert "look" in ChatTemplate(sometimes).render([USER, ANSWER, USER], tools=[TOOL])
    first = "{{ documents[0].text }}" + BY_ROLE
    texts = [{"title": "a", "text": "first"}, {"title": "b", "text": "second"}]
    assert "first" in ChatTemplate(first).render([USER], documents=texts[:1])
    refused(first, [USER], "no place for documents", documents=texts)


def test_arguments_that_are_left_out() -> None:
    source = EACH.replace("BODY", "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
                          "{% if loop.first %}{{ c.function.arguments | tojson }}{% endif %}{% endfor %}")  # fmt: skip
    twice = {**CALL, "tool_calls": CALL["tool_calls"] * 2}
    assert ChatTemplate(source).render([USER, CALL])
    refused(source, [USER, twice], r"messages\[1\].*leaves out its tool_calls\[1\]")


def test_a_template_that_takes_messages_at_certain_places(caplog: pytest.LogCaptureFixture) -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    with caplog.at_level(logging.WARNING, "pio"):
        assert template.render([USER]) == USER["content"]
        assert caplog.messages == []
        assert template.render([USER, ANSWER]) == template.render([USER, ANSWER]) == USER["content"]
    assert len(caplog.messages) == 1
    assert "certain places only" in caplog.messages[0]


TEXTS = st.sampled_from(
    ["ok", "a", "user", "hi", "Hi there", "assistant", "<user>", "ok ok", " \n", "", "look", "9071000000"]
)
ROLES = st.sampled_from(["user", "assistant", "system", "bot"])
TALKS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXTS}), min_size=1, max_size=6)
ODD = EACH.replace("BODY", "{% if loop.index % 3 %}[{{ m.content | trim }}]{% endif %}") + "ok"


@given(TALKS, st.sampled_from([BY_ROLE, MOVED["system-first"], MOVED["collected"], ODD]))
def test_what_is_refused_is_what_has_no_effect(messages: list[dict[str, Any]], source: str) -> None:
    """Jinja itself tells, message by message, whether a content has an effect on the prompt."""
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    prompt, dropped = plain.render(messages=messages), []
    for index, message in enumerate(messages):
        changed = [*messages[:index], {**message, "content": f"Q{message['content']}Q"}, *messages[index + 1 :]]
        if message["content"].strip() and plain.render(messages=changed) == prompt:
            dropped.append(index)
    if not dropped:
        assert ChatTemplate(source).render(messages) == prompt
    else:
        refused(source, messages, rf"messages\[{dropped[0]}\]")


def test_a_template_that_reads_no_messages(caplog: pytest.LogCaptureFixture) -> None:
    for empty in ("", " \n"):
        refused(empty, [USER], "messages: the chat template of this model is empty")
    template = ChatTemplate("Hello")
    with caplog.at_level(logging.WARNING, "pio"):
        assert template.render([USER]) == template.render([USER, ANSWER]) == "Hello"
    assert caplog.messages == ["this model: the chat template reads no messages, so the model does not see them"]
