"""Tools through a loaded model: what it sees, what it must call, and what is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling_model import TEMPLATE, make_calling_model

import pio
from pio.plugin.prompts import Prompts
from pio.text.chat_template import ChatTemplate
from pio.text.encoded_prompt import EncodedPrompt
from pio.text.tokenizer import Tokenizer

ASK = [{"role": "user", "content": "Write a function."}]
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "save", "parameters": {"properties": {"code": {"type": "string"}}}}},
    {"name": "stop"},
]
FIELDS: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pio.TextModelPlugin]:
    with pio.load(make_calling_model(tmp_path_factory.mktemp("calling") / "model")) as model:
        yield model


def test_tools_are_in_the_prompt_and_without_calls_the_answer_is_the_same(model: pio.TextModelPlugin) -> None:
    result = model.generate(ASK, tools=TOOLS, **FIELDS)
    text = model.apply_chat_template(ASK, tools=TOOLS)
    assert '"save"' in text and result.usage.prompt_tokens == len(model.tokenize(text))
    plain = model.generate(text, **FIELDS)
    assert (result.token_ids, result.tool_calls, plain.tool_calls) == (plain.token_ids, (), ())
    assert model.generate(ASK, tools=TOOLS, tool_choice="auto", **FIELDS).token_ids == result.token_ids


def test_none_leaves_the_tools_out(model: pio.TextModelPlugin) -> None:
    result = model.generate(ASK, tools=TOOLS, tool_choice="none", **FIELDS)
    assert result.usage == model.generate(ASK, **FIELDS).usage
    assert model.generate_text(ASK, tools=TOOLS, tool_choice="none", **FIELDS) == result.text
    assert model.fit_messages(ASK, result.usage.prompt_tokens, tools=TOOLS, tool_choice="none") == ASK
    with pytest.raises(pio.CapacityError):
        model.fit_messages(ASK, result.usage.prompt_tokens, tools=TOOLS)


@pytest.mark.parametrize(
    ("choice", "begun"),
    [
        ("required", '<tool_call>\n{"name":'),
        ({"name": "stop"}, '<tool_call>\n{"name": "stop", "arguments":'),
        ({"type": "function", "function": {"name": "save"}}, '<tool_call>\n{"name": "save", "arguments":'),
    ],
)
def test_an_answer_begins_with_a_call(model: pio.TextModelPlugin, choice: Any, begun: str) -> None:
    result = model.generate(ASK, tools=TOOLS, tool_choice=choice, **FIELDS)
    prompt = model.apply_chat_template(ASK, tools=TOOLS, enable_thinking=False) + begun
    assert prompt.endswith(f"<think></think>{begun}")
    assert result.token_ids == model.generate(model.tokenize(prompt), **FIELDS).token_ids
    assert result.tool_calls[0].raw.startswith(begun) and result.reasoning is None
    handle = model.submit(ASK, tools=TOOLS, tool_choice=choice, **FIELDS)
    assert "".join(handle).startswith(begun)
    samples = model.generate(ASK, tools=TOOLS, tool_choice=choice, max_new_tokens=9, n=2, seed=1).samples
    assert all(sample.tool_calls[0].raw.startswith(begun) for sample in samples)


@pytest.mark.parametrize(
    ("prompt", "fields", "told"),
    [
        (ASK, {"tool_choice": "auto"}, "tool_choice: there are no tools"),
        (ASK, {"tools": [], "tool_choice": "required"}, "tool_choice: there are no tools"),
        (ASK, {"tools": TOOLS, "tool_choice": "any"}, "tool_choice is 'any'"),
        (
            ASK,
            {"tools": TOOLS, "tool_choice": {"name": "rm"}},
            "tool_choice: there is no tool 'rm'; the tools are save, stop",
        ),
        (ASK, {"tools": [{"name": "a b"}]}, r"tools\[0\] has the name 'a b'"),
        (ASK, {"tools": [*TOOLS, {"name": "stop"}]}, r"tools\[2\] has the name 'stop', as one before it"),
        (ASK, {"tools": TOOLS, "tool_choice": "required", "enable_thinking": True}, "leave enable_thinking out"),
        ("Hi", {"tools": TOOLS}, "tools: only a list of messages can use this"),
        ("Hi", {"tool_choice": "auto"}, "tool_choice: only a list of messages can use this"),
        (
            [*ASK, {"role": "assistant", "content": "def"}],
            {"tools": TOOLS, "tool_choice": "required", "continue_final_message": True},
            "tool_choice: the answer is to begin with a call, and the last message is continued",
        ),
    ],
)
def test_what_contradicts_itself(model: pio.TextModelPlugin, prompt: Any, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(pio.ConfigError, match=told):
        model.generate(prompt, **FIELDS, **fields)


def test_a_text_alone_has_no_calls(model: pio.TextModelPlugin) -> None:
    for ask in (model.generate_text, model.chat_completion):
        with pytest.raises(pio.ConfigError, match=r"a text alone has no tool calls, .* use generate\(\)"):
            ask(ASK, tools=TOOLS, **FIELDS)
    handle = model.submit(ASK, tools=TOOLS, **FIELDS)
    assert "".join(model.stream(ASK, tools=TOOLS, **FIELDS)) == "".join(handle)


def test_a_model_whose_calls_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    unknown = TEMPLATE.replace("<tool_call>", "[CALL]").replace("</tool_call>", "[/CALL]")
    with pio.load(make_calling_model(tmp_path / "model", unknown)) as model:
        with pytest.raises(pio.ConfigError, match=r"tools: the chat template of .*model writes calls in no format"):
            model.generate(ASK, tools=TOOLS, **FIELDS)
        text = model.apply_chat_template(ASK, tools=TOOLS)
        assert model.generate(text, **FIELDS).tool_calls == ()


def test_a_template_that_writes_no_calls_leaves_it_to_the_plugin(tmp_path: Path) -> None:
    silent = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    with pio.load(make_calling_model(tmp_path / "model", silent)) as model:
        assert model.call_format == "hermes"
        calls = model.generate(ASK, tools=TOOLS, tool_choice={"name": "stop"}, **FIELDS).tool_calls
        assert calls[0].name == "stop" or calls[0].malformed
    with pio.load("demo") as model, pytest.raises(pio.ConfigError, match="no place for tools"):
        model.generate(ASK, tools=TOOLS, **FIELDS)


def test_an_answer_cannot_begin_with_a_call_where_reasoning_comes_first(tmp_path: Path) -> None:
    thinking = TEMPLATE.replace(
        "{% if enable_thinking is false %}{{ '<think></think>' }}{% endif %}", "{{ '<think>' }}"
    )
    with pio.load(make_calling_model(tmp_path / "model", thinking)) as model:
        with pytest.raises(pio.ConfigError, match="begins every answer with reasoning"):
            model.generate(ASK, tools=TOOLS, tool_choice="required", **FIELDS)
        assert model.generate(ASK, tools=TOOLS, **FIELDS).tool_calls == ()


class Looking:
    """Reads no picture, and places none."""

    modalities, marks, mark_ids = ("image",), frozenset[str](), ()

    def place(self, ids: list[int], sources: list[Any], most: int) -> EncodedPrompt:
        assert sources == []
        return EncodedPrompt(ids)


def test_a_model_that_sees_calls_tools_too() -> None:
    media: Any = Looking()
    tokenizer = Tokenizer.from_folder(Path(pio.__file__).parent / "demo")
    seeing, reading = (Prompts("", tokenizer, ChatTemplate(TEMPLATE), media=taken) for taken in (media, None))
    found = seeing.encode(ASK, True, tools=TOOLS, tool_choice="required")
    assert found.calls is not None and found.calls.begun
    assert found == reading.encode(ASK, True, tools=TOOLS, tool_choice="required")
    assert seeing.encode(ASK, tools=TOOLS).calls is None
