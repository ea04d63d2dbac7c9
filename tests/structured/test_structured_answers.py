"""Answers of the demo model in the shapes that were asked for, checked by validators that are not pio's."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field, field_validator

import pio
from pio.engine import answer
from pio.engine.random_numbers import uniform
from pio.ops.token_mask import TokenMask
from pio.structured.constraint import Constraint
from pio.text.chat_template import ChatTemplate

PROMPT = "def area(shape):\n"
CHAT = [{"role": "user", "content": "Which shape has three corners?"}]
END, THINK, THOUGHT = 2, 3, 4


class Shape(BaseModel):
    kind: Literal["circle", "square"]
    corners: int = Field(ge=0, le=20)
    inside: bool


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["circle", "square"]},
        "sides": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
        "name": {"type": ["string", "null"], "maxLength": 8},
        "at": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}
        | {"additionalProperties": False},
    },
    "required": ["kind", "sides", "name", "at"],
    "additionalProperties": False,
}
FIELDS: dict[str, Any] = {"response_format": SCHEMA, "max_new_tokens": 400, "temperature": 1.0}


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with pio.load("demo", cache_tokens=8192, max_batch_sequences=8) as loaded:
        yield loaded


def check(result: Any) -> None:
    """The answer is complete, and an independent validator takes what it holds."""
    assert (result.finish_reason, result.answered) == ("stop", True), result.text
    assert result.parsed == json.loads(result.text) and result.parsed is result.parsed
    jsonschema.validate(result.parsed, SCHEMA)


# Every form


def test_a_class_comes_back_as_an_instance(model: Any) -> None:
    result = model.generate(PROMPT, response_format=Shape, seed=1, max_new_tokens=400)
    assert isinstance(result.parsed, Shape) and result.parsed == Shape.model_validate_json(result.text)
    assert result.parsed is result.parsed
    again = pickle.loads(pickle.dumps(result))
    assert again == result and again.parsed == result.parsed


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        (["yes", "no", "not now"], r"yes|no|not now"),
        ("regex:[0-9]{3}-[a-f]{2,4}", r"[0-9]{3}-[a-f]{2,4}"),
        ({"type": "grammar", "grammar": 'start: "<" WORD ">"\nWORD: /[a-z]{1,6}/'}, r"<[a-z]{1,6}>"),
    ],
)
def test_texts_are_parsed_to_themselves(model: Any, given: Any, pattern: str) -> None:
    for seed in range(10):
        result = model.generate(PROMPT, response_format=given, seed=seed)
        assert re.fullmatch(pattern, result.text) and result.parsed == result.text
        assert result.finish_reason == "stop"


def test_a_choice_that_fits_exactly_is_no_cut_answer(model: Any) -> None:
    """What can only end has ended: no step is spent on an end token."""
    word = next(w for w in ("no", "yes", "if") if len(model.tokenize(w)) == 1)
    result = model.generate(PROMPT, response_format=[word], max_new_tokens=1)
    assert (result.text, result.parsed, result.finish_reason, result.stop_reason) == (word, word, "stop", None)
    assert len(result.token_ids) == 1


def test_an_answer_that_could_go_on_ends_with_an_end_token(model: Any) -> None:
    fields = {"response_format": "regex:[0-9]{2,}", "temperature": 0, "logit_bias": {END: 100.0}}
    result = model.generate(PROMPT, **fields)
    assert re.fullmatch("[0-9]{2,}", result.parsed) and result.parsed == result.text
    assert (result.finish_reason, result.stop_reason, result.token_ids[-1]) == ("stop", END, END)


def test_any_json_object(model: Any) -> None:
    done = [model.generate(PROMPT, response_format={"type": "json_object"}, seed=s) for s in range(12)]
    complete = [result for result in done if result.finish_reason == "stop"]
    assert complete and all(isinstance(result.parsed, dict) for result in complete)
    assert all(result.parsed is None for result in done if result not in complete)


# What the model says by itself, and what it would not


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"temperature": 1.3}, {"top_k": 20, "repetition_penalty": 1.2}])
def test_a_shape_changes_nothing_in_an_answer_that_has_it(model: Any, fields: dict[str, Any]) -> None:
    for seed in range(4):
        free = model.generate(PROMPT, seed=seed, max_new_tokens=20, ignore_eos=True, **fields)
        shape = f"regex:{re.escape(free.text[:9])}(?s:.*)"
        held = model.generate(PROMPT, seed=seed, max_new_tokens=20, response_format=shape, **fields)
        ended = next((i for i, token in enumerate(free.token_ids) if token in (0, END)), 20)
        assert held.token_ids[:ended] == free.token_ids[:ended] and len(held.token_ids) == min(ended + 1, 20)


def test_what_is_drawn_again_comes_as_if_nothing_else_had_been_there(model: Any) -> None:
    """Of three tokens with given chances the first, in the order of draws, has not the shape."""
    row = model.logits(PROMPT)[-1].tolist()
    wanted = {model.tokenize(text)[0]: chance for text, chance in (("(", 0.5), ("a", 0.1), ("b", 0.4))}
    first, a, b = wanted
    assert first < a < b
    fields = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 1, "response_format": ["a", "b"]}
    fields["logit_bias"] = {token: 40 + math.log(chance) - row[token] for token, chance in wanted.items()}
    handles = [model.submit(PROMPT, n=200, seed=seed, **fields) for seed in range(10)]
    counts = Counter(sample.token_ids[0] for handle in handles for sample in handle.result().samples)
    assert counts.keys() == {a, b} and counts.total() == 2000
    assert abs(counts[a] / 2000 - 0.2) < 5 * math.sqrt(0.2 * 0.8 / 2000)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_what_is_drawn_again_is_drawn_by_another_number(model: Any, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """The first one fell where the shape allows nothing: it says something of where it would fall again."""
    drawn: list[float] = []

    def noted(mixed: int, index: int) -> float:
        drawn.append(uniform(mixed, index))
        return drawn[-1]

    monkeypatch.setattr(answer, "uniform", noted)
    model.generate(PROMPT, response_format="regex:[a-f]{40}", seed=seed, max_new_tokens=40)
    assert len(set(drawn)) == len(drawn) > 40


# Two hundred answers, full batches


def test_two_hundred_answers_are_valid_and_stream_as_they_are(model: Any) -> None:
    """Twenty-five prompts of n=8, all at once: events, results and answers that run alone say the same."""
    handles = [model.submit(f"{PROMPT}    # {i}\n", n=8, seed=i, **FIELDS) for i in range(25)]
    for handle in handles:
        streamed = [""] * 8
        for event in handle.events():
            streamed[event.sample] += event.text
        samples = handle.result().samples
        assert streamed == [sample.text for sample in samples]
        for sample in samples:
            check(sample)
    texts = {sample.text for handle in handles for sample in handle.result().samples}
    assert len(texts) > 150
    for i in (0, 7, 24):
        sample = handles[i].result().samples[3]
        alone = model.generate(f"{PROMPT}    # {i}\n", seed=sample.seed, **FIELDS)
        assert (alone.text, alone.token_ids, alone.parsed) == (sample.text, sample.token_ids, sample.parsed)
        assert "".join(model.stream(f"{PROMPT}    # {i}\n", seed=sample.seed, **FIELDS)) == sample.text


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"seed": 4, "logprobs": 3},
        {"seed": 4, "repetition_penalty": 1.3, "frequency_penalty": 0.5},
        {"seed": 4, "top_k": 5, "top_p": 0.9, "min_p": 0.01},
        {"seed": 4, "logit_bias": {220: 20.0}},
        {"seed": 4, "no_repeat_ngram_size": 40, "bad_words_ids": [[90, 91]]},
        {"seed": 4, "skip_special_tokens": False},
    ],
)
def test_with_every_way_to_choose(model: Any, fields: dict[str, Any]) -> None:
    result = model.generate(PROMPT, **{**FIELDS, **fields})
    check(result)
    if "logprobs" in fields:  # of the raw logits, whatever the shape allows
        assert len(result.logprobs) == len(result.token_ids)
        assert b"".join(entry.bytes for entry in result.logprobs).decode() == result.text


def test_bans_hold_beside_the_shape(model: Any) -> None:
    """Single digits are allowed by the expression, and most of them are not to come."""
    digits = [model.tokenize(digit)[0] for digit in "012345678"]
    nine = model.tokenize("9")[0]
    fields = {"response_format": "regex:[0-9]", "max_new_tokens": 5}
    for seed in range(5):
        result = model.generate(PROMPT, suppress_tokens=digits, seed=seed, **fields)
        assert result.text == "9"
        first = model.generate(
            PROMPT, begin_suppress_tokens=digits, seed=seed, **{**fields, "response_format": "regex:[0-9]{2}"}
        )
        assert first.text[0] == "9"
    with pytest.raises(pio.ConfigError, match="response_format together forbid every token"):
        model.generate(PROMPT, suppress_tokens=[*digits, nine], **fields)


def test_spaces_that_a_model_wants_do_not_go_on_for_ever(model: Any) -> None:
    """A bias of 20 on everything white, outside of texts: a bounded run of it, then the next part."""
    white = {t: 20.0 for t in range(4096) if (data := model.token_bytes(t)) and not data.strip()}
    schema = {"type": "array", "items": {"type": "integer", "maximum": 9, "minimum": 0}, "minItems": 2, "maxItems": 4}
    for seed in range(20):
        result = model.generate(PROMPT, response_format=schema, logit_bias=white, seed=seed, max_new_tokens=300)
        jsonschema.validate(result.parsed, schema)
        assert result.finish_reason == "stop" and re.search(r"\s", result.text)


# Cut answers, and those that a class refuses


def test_an_answer_that_is_cut_has_nothing_parsed(model: Any) -> None:
    whole = model.generate(PROMPT, seed=3, **FIELDS)
    check(whole)
    for count in (1, 5, len(whole.token_ids) - 1):
        cut = model.generate(PROMPT, seed=3, **{**FIELDS, "max_new_tokens": count})
        assert (cut.finish_reason, cut.parsed) == ("length", None) and whole.text.startswith(cut.text)
    same = model.generate(PROMPT, seed=3, **{**FIELDS, "max_new_tokens": len(whole.token_ids)})
    assert (same.finish_reason, same.parsed) == ("stop", whole.parsed)
    stopped = model.generate(PROMPT, seed=3, stop='"sides"', **FIELDS)
    assert (stopped.finish_reason, stopped.stop_reason, stopped.parsed) == ("stop", '"sides"', None)
    comma = next(t for t in whole.token_ids[3:] if t not in whole.token_ids[:3])
    broken = model.generate(PROMPT, seed=3, stop_token_ids=[comma], **FIELDS)
    assert (broken.finish_reason, broken.stop_reason, broken.parsed) == ("stop", comma, None)
    assert model.generate(PROMPT, max_new_tokens=3).parsed is None


class Never(BaseModel):
    flag: bool

    @field_validator("flag")
    @classmethod
    def refuse(cls, value: bool) -> bool:
        raise ValueError("this flag pleases nobody")


def test_a_class_that_refuses_what_its_schema_allows(model: Any) -> None:
    result = model.generate(PROMPT, response_format=Never)
    assert json.loads(result.text)["flag"] in (True, False)
    with pytest.raises(pio.RefusedAnswerError, match=r"Never refuses it (?s:.*)pleases nobody"):
        _ = result.parsed


# Reasoning


@pytest.mark.parametrize("bias", [{THINK: 100.0}, {THINK: -100.0}])
def test_a_model_that_may_think(model: Any, bias: dict[int, float]) -> None:
    """With a template that knows of reasoning; the tag that ends it is as likely, so that it comes soon."""
    for seed in range(10):
        handle = model.submit(CHAT, logit_bias={**bias, THOUGHT: 100.0}, seed=seed, **FIELDS)
        kinds = {"text": "", "reasoning": "", "markup": ""}
        for event in handle.events():
            kinds[event.kind] += event.text
        result = handle.result()
        assert (result.token_ids[0] == THINK) == (bias[THINK] > 0)
        assert kinds["text"] == result.text and kinds["reasoning"] == (result.reasoning or "")
        check(result)
        if bias[THINK] > 0:
            assert kinds["markup"].startswith("<think>") and kinds["markup"].strip("\n").endswith("</think>")


def test_a_prompt_that_opens_the_reasoning(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n<think>\n"
    monkeypatch.setattr(model.loaded.prompts, "chat_template", ChatTemplate(source))
    bias = {END: 20.0, THOUGHT: 6.0}  # who thinks cannot end, however much it wants to
    lengths = set[int]()
    for seed in range(10):
        result = model.generate(CHAT, logit_bias=bias, seed=seed, **FIELDS)
        check(result)
        lengths.add(len(result.reasoning or ""))
    assert len(lengths) > 3
    cut = model.generate(CHAT, max_new_tokens=4, response_format=SCHEMA, temperature=0, logit_bias={THOUGHT: -100.0})
    assert (cut.answered, cut.parsed, cut.finish_reason) == (False, None, "length")
    with pytest.raises(pio.UnfinishedAnswerError):
        model.chat_completion(CHAT, max_new_tokens=4, response_format=SCHEMA, logit_bias={THOUGHT: -100.0})


def test_without_thinking(model: Any) -> None:
    check(model.generate(CHAT, enable_thinking=False, seed=1, **FIELDS))
    said = json.loads(model.chat_completion(CHAT, enable_thinking=False, seed=1, **FIELDS))
    assert [*said] == SCHEMA["required"]


# Others are unharmed


def test_a_refused_format_harms_nobody(model: Any) -> None:
    alone = model.generate(PROMPT, seed=5, max_new_tokens=40)
    running = model.submit(PROMPT, seed=5, max_new_tokens=40)
    shaped = model.submit(PROMPT, seed=3, **FIELDS)
    for bad in (
        {"type": "array", "uniqueItems": True},
        "regex:(",
        {"type": "grammar", "grammar": "start: foo"},
        "json",
    ):
        with pytest.raises(pio.ConfigError, match="response_format"):
            model.submit(PROMPT, response_format=bad)
    with pytest.raises(pio.ConfigError, match="forbid every token"):
        model.generate(PROMPT, response_format=["no"], suppress_tokens=list(range(16, 4096)))
    assert running.result().token_ids == alone.token_ids
    check(shaped.result())


def test_a_mask_that_cannot_be_found_ends_its_own_answer_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Constraint.look

    def failing(self: Constraint) -> TokenMask:
        if self._matcher.validate_tokens(model.tokenize("7")):
            raise pio.PioError("response_format: the grammar cannot be followed any further")
        return look(self)

    monkeypatch.setattr(Constraint, "look", failing)
    letters = {"response_format": "regex:[a-f]{40}", "seed": 3, "max_new_tokens": 60}
    running = [model.submit(PROMPT, seed=5, max_new_tokens=40), model.submit(PROMPT, **letters)]
    with pytest.raises(pio.PioError, match="cannot be followed"):
        model.generate(PROMPT, response_format="regex:[0-9]{30}", seed=1)
    monkeypatch.undo()
    assert re.fullmatch("[a-f]{40}", running[1].result().parsed)
    assert running[1].result().token_ids == model.generate(PROMPT, **letters).token_ids
    assert running[0].result().token_ids == model.generate(PROMPT, seed=5, max_new_tokens=40).token_ids


def test_a_dropped_answer_is_dropped(model: Any) -> None:
    stream = model.stream(PROMPT, seed=3, **FIELDS)
    next(stream)
    stream.close()
    check(model.generate(PROMPT, seed=3, **FIELDS))
