"""Conversations with the demo model, whose answers come back in the tokens that they were."""

from __future__ import annotations

import copy
import gc
import json
import logging
import pickle
import weakref
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from calling_model import make_calling_model
from hypothesis import given, settings
from hypothesis import strategies as st

import pio

TEMPLATE = """{% if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == "assistant" %}{{ m.content.strip() }}{% for call in m.tool_calls or [] %}

<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{% else %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TOOLS: list[Any] = [{"name": "save", "parameters": {"properties": {"code": {"type": "string"}}}}, {"name": "stop"}]
STATES = 64  # tokens that a turn may compute besides what is new, at most
TURNS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_calling_model(tmp_path_factory.mktemp("kept") / "model", TEMPLATE)


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[pio.TextModelPlugin]:
    with pio.load(folder) as model:
        yield model


def converse(model: pio.TextModelPlugin) -> Iterator[pio.Generation]:
    """An agent that calls tools, odd calls as the demo model writes them, and hears of it."""
    messages: list[Any] = [{"role": "user", "content": "Write a function that adds two numbers."}]
    # the template would leave the first out, and the text of an answer the others
    plain = {model.tokenize(token)[0]: -100.0 for token in ("<think>", "<|im_start|>", "<|fim_prefix|>")}
    for turn in range(TURNS):
        fields: dict[str, Any] = {
            "tools": TOOLS,
            "max_new_tokens": 44 + turn % 3,
            "min_new_tokens": 8,
            "temperature": 1.0,
            "seed": turn,
        }
        result = model.generate(messages, **fields, tool_choice=("auto", "required")[turn % 2], logit_bias=plain)
        yield result
        messages.append(json.loads(json.dumps(result.message)))
        if result.tool_calls:
            messages += [{"role": "tool", "content": c.malformed or "saved"} for c in result.tool_calls]
        else:
            messages.append({"role": "user", "content": f"And now number {turn}?"})


def test_twenty_turns_compute_what_is_new(folder: Path, model: pio.TextModelPlugin) -> None:
    odd, calls, before = 0, 0, None
    with pio.load(folder, prefix_cache=False, speculation="off") as plain:
        for result, alone in zip(converse(model), converse(plain), strict=True):
            assert (result.token_ids, result.text, result.tool_calls) == (
                alone.token_ids,
                alone.text,
                alone.tool_calls,
            )
            assert "token_ids" in result.message and alone.usage.cached_tokens == 0
            if before is not None:
                known = before.usage.prompt_tokens + before.usage.completion_tokens
                assert known - result.usage.cached_tokens <= STATES, "all but the new tokens was found"
            odd += model.tokenize(model.detokenize(result.token_ids)) != result.token_ids
            calls += len(result.tool_calls)
            before = result
    assert odd > 3 and calls > 5, "answers are what their text would become"


def test_text_alone_is_not_found(model: pio.TextModelPlugin) -> None:
    """What the tokens are for: without them a prompt parts from what was computed within the answer."""
    asked: list[Any] = [{"role": "user", "content": "Write a function."}]
    answer: dict[str, Any] = {
        "max_new_tokens": 90,
        "ignore_eos": True,
        "logit_bias": {model.tokenize("<think>")[0]: -100},
    }
    for seed in range(40):
        result = model.generate(asked, seed=seed, cache_salt=str(seed), **answer)
        if model.tokenize(result.text)[:32] != result.token_ids[:32]:
            break
    else:
        pytest.fail("every answer is what the tokenizer makes of its text")
    fields: dict[str, Any] = {"max_new_tokens": 1, "cache_salt": str(seed)}
    plain = [*asked, {"role": "assistant", "content": result.text}, {"role": "user", "content": "Go on."}]
    without = model.generate(plain, **fields).usage.cached_tokens
    found = model.generate([*asked, result.message, plain[-1]], **fields).usage.cached_tokens
    assert without < found and found > result.usage.prompt_tokens + 90 - STATES


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    bias=st.sampled_from(["<tool_call>", "</tool_call>", "<think>", "</think>", "<|im_end|>", "<|fim_middle|>", "\n"]),
    fields=st.fixed_dictionaries(
        {"tools": st.sampled_from([None, TOOLS])},
        optional={
            "stop": st.sampled_from(["\n", "e", "</tool_call>", "<|im_end|>"]),
            "include_stop": st.just(True),
            "skip_special_tokens": st.booleans(),
            "max_new_tokens": st.integers(1, 30),
        },
    ),
)
def test_every_message_comes_back(model: pio.TextModelPlugin, seed: int, bias: str, fields: dict[str, Any]) -> None:
    """Whatever the answer is, its message is taken, and the prompt says what it says without tokens or the same."""
    asked: list[Any] = [{"role": "user", "content": "Write a function."}]
    told = {**fields, "max_new_tokens": fields.get("max_new_tokens", 20)}
    told["logit_bias"] = {model.tokenize(bias)[0]: 7.0}
    result = model.generate(asked, seed=seed, temperature=1.5, **told)
    message = result.message
    assert json.loads(json.dumps(message)) == message and message == result.message is not message
    messages = [*asked, message, {"role": "user", "content": "Go on."}]
    variables: dict[str, Any] = {} if fields["tools"] is None else {"tools": TOOLS}
    prompts = model.loaded.prompts
    found = list(prompts.encode(messages, **variables).token_ids)
    text, own = model.detokenize(found), message.get("token_ids")
    if own is None:
        assert found == model.tokenize(prompts.render(messages, **variables))
        return
    assert own == result.token_ids[: len(own)] and prompts.encode([*asked, message], **variables).token_ids
    if "".join(text.split()) == "".join(prompts.render(messages, **variables).split()):
        return
    assert message.get("tool_calls") or "</think>" in model.detokenize(own), "only calls are written otherwise"


def test_several_answers_have_messages_of_their_own(model: pio.TextModelPlugin) -> None:
    asked: list[Any] = [{"role": "user", "content": "Write a function."}]
    result = model.generate(asked, n=3, seed=4, max_new_tokens=7, ignore_eos=True)
    assert [sample.message["token_ids"] for sample in result.samples] == [s.token_ids for s in result.samples]
    assert result.message == result.samples[0].message


def test_messages_with_tokens_are_counted_and_shown(
    model: pio.TextModelPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever messages go: a budget of tokens, the text of a prompt, logits."""
    asked: list[Any] = [{"role": "user", "content": "Write a function."}]
    result = model.generate(asked, seed=3, max_new_tokens=30, ignore_eos=True)
    messages = [*asked, result.message, {"role": "user", "content": "Go on."}]
    prompt = model.loaded.prompts.encode(messages)
    assert model.fit_messages(messages, len(prompt.token_ids)) == messages
    assert model.fit_messages(messages, len(prompt.token_ids) - 1) == messages[2:]
    text = {name: value for name, value in result.message.items() if name != "token_ids"}
    shown = model.apply_chat_template([asked[0], text, messages[2]])
    assert model.apply_chat_template(messages) == shown
    assert model.logits(messages).shape[0] == len(prompt.token_ids)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def holds(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether data is of these types alone."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return isinstance(value, kinds) and all(holds(one, kinds) for one in inner)


def test_a_result_is_plain_data(model: pio.TextModelPlugin) -> None:
    """It can be kept, copied and sent to another process without the tokenizer and the template."""
    asked: list[Any] = [{"role": "user", "content": "Write a function."}]
    result = model.generate(asked, seed=3, max_new_tokens=40, ignore_eos=True, tools=TOOLS, tool_choice="required")
    assert "token_ids" in result.message and result.tool_calls
    plain = pickle.dumps(replace(result, own_message=None))
    kept = pickle.dumps(result)
    assert len(kept) < len(plain) + 4 * len(json.dumps(result.message))
    again = pickle.loads(kept)
    assert again == result and again.message == result.message == copy.deepcopy(result).message
    assert replace(result, seed=7).message == result.message
    assert holds(asdict(result), (dict, list, tuple, str, int, float, type(None)))
    result.message["token_ids"].clear()
    assert again.message == result.message


def test_a_result_that_is_kept_keeps_no_tokenizer(folder: Path) -> None:
    with pio.load(folder) as model:
        result = model.generate([{"role": "user", "content": "Hi"}], seed=3, max_new_tokens=8)
        tokenizer = weakref.ref(model.loaded.prompts.tokenizer)
    del model
    gc.collect()
    assert tokenizer() is None and result.message["content"] == result.text


def test_a_generation_that_a_program_makes_has_a_message_too() -> None:
    usage, timings = pio.Usage(1, 2), pio.Timings(0, 0, 0, 0, 0)
    made = pio.Generation("Hi", [1, 2], "stop", None, None, "Hm", usage, timings, 3)
    assert made.message == {"role": "assistant", "content": "Hi", "reasoning_content": "Hm"}
    call = pio.ToolCall("call_1", "add", {"a": 1}, "<tool_call>…</tool_call>")
    made = pio.Generation("", [1], "tool_calls", None, None, None, usage, timings, 3, tool_calls=(call,))
    assert made.message["tool_calls"] == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "add", "arguments": '{"a": 1}'},
            "raw": "<tool_call>…</tool_call>",
        }
    ]
