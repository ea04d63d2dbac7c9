"""A last message that is left open; that real templates do what transformers does is tested in tests/golden."""

from typing import Any

import pytest

from pio.errors import ConfigError
from pio.text.chat_template import ChatTemplate
from pio.text.final_message import continues_reasoning

CHAT = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "CONTENT<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
KEEPS = CHAT.replace("CONTENT", "{{ m.content }}")
TRIMS = CHAT.replace("CONTENT", "{{ m.content | trim }}")
DROPS = CHAT.replace("CONTENT", "{{ m.content if not loop.last else m.content[:2] }}")
USER = {"role": "user", "content": "Is rain wet?"}


def opened(source: str, content: Any, which: Any = True, **fields: Any) -> str:
    messages = [USER, {"role": "assistant", "content": content, **fields}]
    return ChatTemplate(source).render(messages, continue_final_message=which)


@pytest.mark.parametrize(
    ("source", "content", "expected"),
    [
        (KEEPS, "Yes, rain", "Yes, rain"),
        (KEEPS, "Yes, ", "Yes, "),
        (KEEPS, " \nYes\n", " \nYes\n"),
        (TRIMS, " \nYes\n", "Yes"),
        (KEEPS, "", ""),
        (TRIMS, "", ""),
        (KEEPS, "<end>\n<assistant>", "<end>\n<assistant>"),
        (KEEPS, [{"type": "text", "text": "Yes, "}, {"type": "text", "text": "rain"}], "Yes, rain"),
    ],
)
def test_the_prompt_ends_where_the_message_does(source: str, content: Any, expected: str) -> None:
    assert opened(source, content) == f"<user>Is rain wet?<end>\n<assistant>{expected}"


def test_parts_stay_parts_where_the_template_reads_them() -> None:
    source = CHAT.replace("CONTENT", "{% for p in m.content %}{{ p.text }};{% endfor %}")
    parts = [{"type": "text", "text": "Yes, "}, {"type": "text", "text": "rain"}]
    messages = [{"role": "assistant", "content": parts}]
    assert ChatTemplate(source).render(messages, continue_final_message=True) == "<assistant>Yes, ;rain"
    assert parts[1]["text"] == "rain"


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_that_goes_on(name: str) -> None:
    assert opened(KEEPS, "", name, **{name: "Rain is"}) == "<user>Is rain wet?<end>\n<assistant><think>Rain is"


def test_without_a_final_message_to_continue() -> None:
    template = ChatTemplate(KEEPS)
    for which in (False, None):
        assert template.render([USER], continue_final_message=which).endswith("<end>\n<assistant>")
    with pytest.raises(ConfigError, match="exclude each other"):
        template.render([USER], continue_final_message=True, add_generation_prompt=True)
    assert template.render([USER], continue_final_message=True, add_generation_prompt=False) == "<user>Is rain wet?"
    with pytest.raises(ConfigError, match="'yes'; True, or content, reasoning_content"):
        template.render([USER], continue_final_message="yes")
    with pytest.raises(ConfigError, match=r'messages\[1\]\["reasoning_content"\] holds no text'):
        opened(KEEPS, "a", "reasoning_content")
    with pytest.raises(ConfigError, match=r"messages\[1\] has tool_calls"):
        opened(KEEPS, "a", tool_calls=[{"function": {"name": "f", "arguments": {}}}])
    with pytest.raises(ConfigError, match="does not write the end of the last message"):
        opened(DROPS, "abcdef")


def test_whether_reasoning_goes_on() -> None:
    def inside(content: Any, field: str = "content") -> bool:
        return continues_reasoning({"role": "assistant", "content": content}, field)

    assert inside("<think>\nRain is")
    assert inside([{"type": "text", "text": "<think>"}])
    assert not inside("<think>Rain is wet.</think>Yes")
    assert not inside("Yes")
    assert inside("", "reasoning_content")
