"""Answers with calls of tools, from a model that says what it is told to, through tokenizer, template and engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import tokenizers
from drafters import RandomDrafter, speculation
from toy_model import STEP, PagedToyCache, ToyCache, ToyManager, ToyModel

from pio.cache.batch import Batch
from pio.engine.generation import Generation, TokenEvent
from pio.engine.sampling_params import SamplingParams
from pio.loading.checkpoint import resolve
from pio.plugin.prompts import Prompts
from pio.tensor import Tensor
from pio.text.chat_template import ChatTemplate
from pio.text.tokenizer import Tokenizer

CONTEXT, VOCAB = 600, 4200
TEMPLATE = """{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}{{ "\\n" }}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
{% if thinks %}{{ '<think>' }}{% endif %}{# </think> #}"""
ASK = [{"role": "user", "content": "What time is it?"}]
TOOLS = [
    {"type": "function", "function": {"name": "clock", "parameters": {"properties": {"zone": {"type": "string"}}}}}
]
CALL = '<tool_call>\n{"name": "clock", "arguments": {"zone": "UTC"}}\n</tool_call>'


def make_tokenizer(special: bool = False) -> Tokenizer:
    backend = tokenizers.Tokenizer.from_file(str(resolve("demo") / "tokenizer.json"))
    if special:
        backend.add_special_tokens(["<tool_call>", "</tool_call>"])
    return Tokenizer(backend, {}, vocab_size=VOCAB)


class Script(ToyModel):
    """Says what it is told to, token by token behind a prompt of one."""

    def __init__(self, script: Sequence[int]) -> None:
        super().__init__(max_positions=CONTEXT)
        self.script, self.vocab_size = script, VOCAB
        self._out = Tensor.zeros((self.max_batch_outputs, VOCAB))

    def forward(self, batch: Batch, cache: ToyCache) -> Tensor:
        first = batch.past.tolist()[0]
        self._out.fill_(0.0)
        for i, row in enumerate(batch.output_rows.tolist()[: batch.num_outputs]):
            self._out[i][self.script[min(first + row, len(self.script) - 1)]].fill_(9.0)
        return self._out[: batch.num_outputs]


def answer(
    text: str,
    messages: Any = ASK,
    *,
    tools: Any = TOOLS,
    fields: Any = None,
    special: bool = False,
    wrong: int | None = None,
    **variables: Any,
) -> tuple[Generation, list[TokenEvent]]:
    """What comes of a model that says this, then ends; whatever is asked for.

    With ``wrong`` what it says is drafted, with mistakes that are drawn by this seed.
    """
    tokenizer = make_tokenizer(special)
    prompts = Prompts("demo", tokenizer, ChatTemplate(TEMPLATE))
    encoded = prompts.encode(messages, True, tools=tools, **variables)
    end = tokenizer.token_to_id("<|im_end|>")
    assert end is not None
    script = [*tokenizer.encode(text, add_special_tokens=False), end]
    drafts = None if wrong is None else speculation(RandomDrafter(wrong, VOCAB, lambda _: script), 5)
    manager = ToyManager(
        Script(script),
        (ToyCache if drafts is None else PagedToyCache)(CONTEXT // 4, 4),
        speculation=drafts,
        eos_token_ids=[end],
        detokenizer=prompts.detokenizer,
        token_text=prompts.token_text,
        close_thinking=lambda: tuple(tokenizer.encode("</think>\n\n", add_special_tokens=False)),
    )
    try:
        params = SamplingParams(**{"temperature": 0.0, "max_new_tokens": CONTEXT - 1, **(fields or {})})
        handle = manager.submit(replace(encoded, token_ids=[0]), params)
        result, events = handle.result(STEP), list(handle.events())
    finally:
        manager.close()
    for kind, whole in (("text", result.text), ("reasoning", result.reasoning or "")):
        assert "".join(event.text for event in events if event.kind == kind) == whole
    assert [event.call for event in events if event.call] == list(result.tool_calls)
    told = "".join(event.text for event in events if event.kind == "tool_call")
    assert told == "".join(call.raw for call in result.tool_calls)
    return result, events


def test_calls_are_told_from_the_answer() -> None:
    result, events = answer(f"I look.\n\n{CALL}\n{CALL}")
    assert (result.text, result.finish_reason, result.answered) == ("I look.", "tool_calls", True)
    assert [(call.name, call.arguments, call.raw) for call in result.tool_calls] == [
        ("clock", {"zone": "UTC"}, CALL)
    ] * 2
    assert len({call.id for call in result.tool_calls}) == 2
    assert "".join(event.text for event in events) == f"I look.\n\n{CALL}\n{CALL}"
    assert {event.kind for event in events} == {"text", "tool_call", "markup"}
    assert answer(f"I look.\n\n{CALL}\n{CALL}")[0].tool_calls == result.tool_calls


def test_an_answer_of_calls_alone_has_no_content() -> None:
    result, _ = answer(CALL)
    assert (result.text, result.answered, len(result.tool_calls)) == ("", True, 1)


def test_finish_reason_says_tool_calls_without_any() -> None:
    assert answer("It is noon.")[0].finish_reason == "stop"
    assert answer("It is <tool_ca")[0].finish_reason == "stop"
    for text in (CALL, "<tool_call>clock</tool_call>", "<tool_call>"):
        result, _ = answer(text)
        assert result.finish_reason == "tool_calls" and len(result.tool_calls) == 1


def test_without_tools_the_text_stays_text() -> None:
    for choice in ({"tools": None}, {"tools": []}, {"tool_choice": "none"}):
        result, events = answer(CALL, fields={"skip_special_tokens": False}, **choice)
        assert (result.text, result.tool_calls, result.finish_reason) == (CALL, (), "stop")
        assert {event.kind for event in events} == {"text"}


def test_an_answer_that_is_cut_off_in_a_call() -> None:
    for count in range(2, 12):
        result, events = answer(CALL, fields={"max_new_tokens": count})
        assert (
            result.finish_reason == "length"
            and "".join(event.text for event in events) == CALL[: sum(len(e.text) for e in events)]
        )
        if result.tool_calls:
            assert result.tool_calls[0].malformed and result.text == ""


def test_a_stop_text_within_a_call() -> None:
    result, _ = answer(f"So: {CALL} and", fields={"stop": ["UTC"]})
    assert (result.text, result.finish_reason, result.stop_reason) == ("So:", "stop", "UTC")
    (call,) = result.tool_calls
    assert call.name == "clock" and call.raw == CALL[: CALL.index("UTC")]
    assert call.malformed == "the answer ended within the call"


@pytest.mark.parametrize("thought", [f"{CALL} is how I ask.", "a <tool_call> is a tag", CALL])
def test_writing_of_calls_while_thinking_is_a_false_call(thought: str) -> None:
    """Reasoning is no call, whatever is in it; what comes behind it is."""
    result, _ = answer(f"<think>\n{thought}\n</think>\n\n{CALL}")
    assert (result.reasoning, result.text, len(result.tool_calls)) == (thought, "", 1)
    result, _ = answer(f"{thought}</think>Done", thinks=True)
    assert (result.reasoning, result.text, result.tool_calls) == (thought, "Done", ())


def test_a_call_in_reasoning_that_does_not_end_is_told_as_an_answer() -> None:
    result, _ = answer(f"<think>\n{CALL}")
    assert (result.reasoning, result.tool_calls, result.answered) == (CALL, (), False)
    assert result.finish_reason == "stop"


def test_the_end_of_reasoning_is_taken_for_part_of_a_call() -> None:
    result, events = answer(f"Hm.</think>\n\n{CALL}", thinks=True)
    assert (result.reasoning, result.text, len(result.tool_calls)) == ("Hm.", "", 1)
    assert "".join(event.text for event in events if event.kind == "markup") == "</think>\n\n"


def test_a_call_comes_behind_reasoning_that_is_closed() -> None:
    """The model's own tokens in the place of those that close it are not said."""
    encode = make_tokenizer().encode
    thought, unsaid = encode("I wonder", add_special_tokens=False), encode("</think>\n\n", add_special_tokens=False)
    text = make_tokenizer().decode([*thought, *thought[:1] * len(unsaid)]) + CALL
    assert encode(text, add_special_tokens=False)[: len(thought)] == thought
    behind = encode(text, add_special_tokens=False).index(encode(CALL, add_special_tokens=False)[0])
    most = behind - len(unsaid)
    result, events = answer(text, thinks=True, fields={"max_thinking_tokens": most})
    assert result.reasoning and result.text == "" and result.finish_reason == "tool_calls"
    assert [(call.name, call.raw) for call in result.tool_calls] == [("clock", CALL)]
    assert "".join(event.text for event in events if event.kind == "markup") == "</think>\n\n"
    assert answer(text, thinks=True)[0].tool_calls == ()  # else all of it is reasoning


@pytest.mark.parametrize("skip", [True, False])
def test_tags_are_lost_with_special_tokens(skip: bool) -> None:
    result, _ = answer(f"So {CALL}", special=True, fields={"skip_special_tokens": skip})
    assert [(call.name, call.raw) for call in result.tool_calls] == [("clock", CALL)]
    plain, _ = answer(f"So {CALL}", special=True, tools=None)
    assert "<tool_call>" not in plain.text


def test_an_answer_that_has_to_begin_with_a_call() -> None:
    rest = ' "clock", "arguments": {}}\n</tool_call>'
    result, events = answer(rest, tool_choice="required")
    assert [(call.name, call.arguments, call.malformed) for call in result.tool_calls] == [("clock", {}, None)]
    assert result.tool_calls[0].raw == "".join(event.text for event in events) == '<tool_call>\n{"name":' + rest
    result, _ = answer(" {}}\n</tool_call>", tool_choice={"name": "clock"})
    assert [(call.name, call.malformed) for call in result.tool_calls] == [("clock", None)]
    result, _ = answer("<think> I will not", tool_choice="required")
    assert result.reasoning is None and result.tool_calls[0].malformed


def test_an_agent_goes_on_until_there_are_no_calls() -> None:
    """Two tools, a call that is malformed, two at once; prompts have earlier calls as they were written."""
    tools = [*TOOLS, {"name": "add", "parameters": {"properties": {"a": {"type": "number"}, "b": {"type": "number"}}}}]
    functions = {"clock": lambda zone: f"noon in {zone}", "add": lambda a, b: str(a + b)}

    def write(name: str, arguments: str) -> str:
        return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'

    turns = [
        write("watch", "{}"),
        write("clock", '{"zone": "UTC"}') + "\n" + write("add", '{"a": 1, "b": 2.5}'),
        "It is noon, and 3.5.",
    ]
    messages, told = list[Any](ASK), list[str]()
    for said in turns:
        result, _ = answer(said, messages, tools=tools)
        messages.append({"role": "assistant", "content": result.text, "tool_calls": result.tool_calls})
        for call in result.tool_calls:
            told.append(call.malformed or functions[call.name](**call.arguments))
            messages.append({"role": "tool", "content": told[-1], "tool_call_id": call.id})
    assert told == ["there is no tool 'watch'; the tools are clock, add", "noon in UTC", "3.5"]
    assert (result.text, result.tool_calls, result.finish_reason) == (turns[-1], (), "stop")
    prompt = ChatTemplate(TEMPLATE).render(messages, tools=tools)
    places = [prompt.index(text) for text in (turns[0], told[0], turns[1], told[1], told[2], turns[2])]
    assert places == sorted(places)
    assert len({message["tool_call_id"] for message in messages if "tool_call_id" in message}) == 3


@pytest.mark.parametrize(
    "text", [f"I look.\n\n{CALL}\n{CALL}", CALL, "<tool_call>clock</tool_call>", f"Hm.</think>\n{CALL}"]
)
def test_calls_are_the_same_with_drafts(text: str) -> None:
    thinks = "</think>" in text
    for fields in ({"seed": 1}, {"seed": 1, "logprobs": 2, "stop": ["zone"]}, {"seed": 1, "max_new_tokens": 12}):
        expected, events = answer(text, fields=fields, thinks=thinks)
        for seed in range(4):
            found, told = answer(text, fields=fields, thinks=thinks, wrong=seed)
            assert found.timings.speculation == "on" and found.timings.drafted >= found.timings.accepted
            assert replace(found, timings=expected.timings) == expected
            assert told == events
