"""Variables and fields that a template does not read: one warning for each name, or an error where more is asked."""

import logging
from typing import Any

import pytest

from pio.errors import ConfigError
from pio.text.chat_template import ChatTemplate

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if flag %}!{% endif %}{% endfor %}"
USER = {"role": "user", "content": "Hi"}


def test_one_warning_a_model_and_variable(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pio"):
        one, other = ChatTemplate(CHAT, where="one/"), ChatTemplate(CHAT, where="other/")
        for template in (one, other):
            for _ in range(3):
                template.render([USER], enable_thinking=False, flag=True, reasoning_effort="low", unset=None)
    assert [(text.split(":")[0], name) for text in caplog.messages for name in text.split() if "_" in name] == [
        ("one/", "enable_thinking,"),
        ("one/", "reasoning_effort,"),
        ("other/", "enable_thinking,"),
        ("other/", "reasoning_effort,"),
    ]


def test_what_a_template_only_sets_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pio"):
        ChatTemplate("{% set style = 1 %}" + CHAT).render([USER], style=2)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenize", True),
        ("return_tensors", "pt"),
        ("return_dict", True),
        ("padding", "longest"),
        ("truncation", True),
        ("max_length", 99),
        ("chat_template", "{{ messages }}"),
        ("tokenizer_kwargs", {"x": 1}),
        ("return_assistant_tokens_mask", True),
        ("conversation", [USER]),
        ("sanitize_control_tokens", True),
    ],
)
def test_arguments_that_are_no_variables(name: str, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is no variable of a chat template"):
        ChatTemplate(CHAT).render([USER], **{name: value})
    assert ChatTemplate(CHAT).render([USER], **{name: False if isinstance(value, bool) else None}) == "<user>Hi"
    assert caplog.messages == []
    assert ChatTemplate("{{ " + name + " }}").render([USER], **{name: value}) == str(value)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({**USER, "name": "Ann"}, '"name"'),
        ({**USER, "cache_control": {"type": "ephemeral"}}, '"cache_control"'),
        (
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"a": 1}}]},
            "content[].cache_con",
        ),
        ({"role": "assistant", "content": "Hi", "reasoning": "It is a greeting."}, '"reasoning_content"'),
        ({"role": "assistant", "content": "Hi", "annotations": [{"url": "x"}]}, '"annotations"'),
    ],
)
def test_one_warning_a_field(message: dict[str, Any], field: str, caplog: pytest.LogCaptureFixture) -> None:
    template = ChatTemplate(CHAT)
    for _ in range(3):
        assert template.render([message, message]).count("Hi") == 2
    assert len(caplog.messages) == 1
    assert field in caplog.messages[0]


@pytest.mark.parametrize(
    "message",
    [
        USER,
        {**USER, "name": None, "annotations": [], "id": "m1", "type": "message"},
        {"role": "tool", "name": "f", "tool_call_id": "c1", "content": "4"},
    ],
)
def test_labels_need_no_warning(message: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    ChatTemplate(CHAT).render([message])
    assert caplog.messages == []


@pytest.mark.parametrize("body", ["{{ m.name }}", "{{ m['name'] }}", "{{ m | tojson }}", "{{ m }}"])
def test_fields_that_are_read(body: str, caplog: pytest.LogCaptureFixture) -> None:
    source = CHAT.replace("{% if", body + "{% if", 1)
    ChatTemplate(source).render([{**USER, "name": "Ann"}, {"role": "assistant", "content": "a", "name": "Bob"}])
    assert caplog.messages == []


def test_a_field_that_is_read_in_one_role_only(caplog: pytest.LogCaptureFixture) -> None:
    source = CHAT.replace("{% if", "{{ m.name if m.role == 'user' }}{% if", 1)
    messages = [{**USER, "name": "Ann"}, {"role": "assistant", "content": "a", "name": "Bob"}]
    ChatTemplate(source).render(messages[:1])
    assert caplog.messages == []
    ChatTemplate(source).render(messages)
    assert len(caplog.messages) == 1
    assert "'assistant'" in caplog.messages[0]
