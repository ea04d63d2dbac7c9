"""Fields of a call in any combination: all ways to read an answer agree, and what ends it is what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pio

SPECIAL = range(16)  # ids of the demo model's special tokens
THINK = 3, 4
STOPS = ["\n", "e", "):", "</think>", "<|im_start|>user", "e<|im_end|>", "|>", ">\n", "é", "<"]
PLAIN = ["def f(", "# café €", "import os\n"]

conversations = st.sampled_from(["Hi", "Write a function"]).map(lambda text: [{"role": "user", "content": text}])
fields = st.fixed_dictionaries(
    {"max_new_tokens": st.integers(1, 16), "seed": st.integers(0, 2**64 - 1)},
    optional={
        "temperature": st.sampled_from([0.7, 3.0, 20.0]),
        "logit_bias": st.dictionaries(st.sampled_from(SPECIAL), st.sampled_from([5.0, 12.0, 20.0]), max_size=6),
        "stop": st.lists(st.sampled_from(STOPS), min_size=1, max_size=3),
        "stop_token_ids": st.lists(st.integers(0, 4095) | st.sampled_from(SPECIAL), max_size=3),
        "include_stop": st.booleans(),
        "skip_special_tokens": st.booleans(),
        "min_new_tokens": st.integers(0, 20),
        "bad_words_ids": st.lists(st.lists(st.integers(0, 4095), min_size=1, max_size=3), max_size=2),
        "no_repeat_ngram_size": st.integers(0, 4),
        "logprobs": st.integers(0, 3),
        "n": st.integers(1, 3),
    },
)


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with pio.load("demo", context_length=256) as loaded:
        yield loaded


@settings(max_examples=60)
@given(prompt=st.sampled_from(PLAIN) | conversations, fields=fields)
def test_all_ways_to_read_an_answer_agree(model: Any, prompt: Any, fields: dict[str, Any]) -> None:
    fields["max_new_tokens"] += fields.get("min_new_tokens", 0)  # or they would contradict each other
    result = model.generate(prompt, **fields)
    events = list(model.submit(prompt, **fields).events())
    answers = result.samples or (result,)
    assert len(answers) == fields.get("n", 1)
    for index, answer in enumerate(answers):
        mine = [event for event in events if event.sample == index]
        text = "".join(event.text for event in mine)
        assert {event.position: event.token_id for event in mine} == dict(enumerate(answer.token_ids))
        assert [event.position for event in mine] == sorted(event.position for event in mine)
        if len(answers) == 1:
            assert "".join(model.stream(prompt, **{**fields, "logprobs": None})) == text
        kinds = {kind: "".join(e.text for e in mine if e.kind == kind) for kind in ("text", "reasoning", "markup")}
        assert (kinds["text"], kinds["reasoning"]) == (answer.text, answer.reasoning or "")
        assert not set(kinds["markup"]) - set("<think>/\n ")
        if isinstance(prompt, str):
            assert (answer.text, answer.reasoning, answer.answered) == (text, None, True)
        else:
            assert text.endswith(answer.text) and (answer.reasoning or "") in text
        check_end(model, answer, fields)
        if "logprobs" in fields:
            described = b"".join(entry.bytes for entry in answer.logprobs)
            assert described == b"".join(map(model.token_bytes, answer.token_ids))


def check_end(model: Any, answer: pio.Generation, fields: dict[str, Any]) -> None:
    """What ended an answer was asked for, and nothing that was asked for was passed over."""
    ends = {0, 2, *fields.get("stop_token_ids", ())}
    count, reason = len(answer.token_ids), answer.stop_reason
    assert not ends & set(answer.token_ids[:-1])
    assert (answer.finish_reason == "stop") == (reason is not None)
    if reason is None:
        assert count == fields["max_new_tokens"]
    elif isinstance(reason, int):
        assert reason == answer.token_ids[-1] in ends and count > fields.get("min_new_tokens", 0)
    else:
        assert reason in fields["stop"] and reason in model.detokenize(answer.token_ids)
        assert answer.text.endswith(reason) or not fields.get("include_stop", False)
    if not fields.get("include_stop", False):
        assert not any(stop in answer.text for stop in fields.get("stop", ()))
