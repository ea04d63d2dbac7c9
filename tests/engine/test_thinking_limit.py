"""Reasoning that is closed after so many tokens, against a model of it that looks at whole texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_stops import CONTEXT, PIECES, Pieces, Script
from toy_model import STEP, ToyCache, ToyManager

import pio
from pio.engine.sampling_params import SamplingParams
from pio.errors import ConfigError
from pio.ops.token_mask import TokenMask
from pio.text.chat_template import ChatTemplate
from pio.text.closing import closing_text
from pio.text.encoded_prompt import EncodedPrompt
from pio.text.reasoning import Reasoning
from pio.text.tokenizer import Tokenizer

PUBLISHED = Path(__file__).parents[3] / "shared" / "checkpoints"
OPEN, CLOSE = PIECES.index("<think>"), PIECES.index("</think>")
LINE = PIECES.index("\n")
HALVES = PIECES.index("</th"), PIECES.index("ink>")


def say(script: Sequence[int], closing: Sequence[int], reasoning: Reasoning | None, **fields: Any) -> Any:
    """The answer of a model that says this, whatever is put in the place of its tokens."""
    manager = ToyManager(
        Script(script),
        ToyCache(CONTEXT // 4, 4),
        detokenizer=Pieces,
        token_text=PIECES.__getitem__,
        close_thinking=lambda: tuple(closing),
    )
    try:
        params = SamplingParams(**{"temperature": 0.0, "max_new_tokens": len(script), **fields})
        return manager.submit(EncodedPrompt([0], reasoning), params).result(STEP)
    finally:
        manager.close()


def thinks(text: str, opened: bool) -> bool:
    """Whether a text stands within the reasoning that it begins with."""
    begun = text.lstrip().removeprefix("<think>")
    return (opened or begun != text.lstrip()) and "</think>" not in begun


def expected(script: Sequence[int], closing: Sequence[int], opened: bool, most: int) -> list[int]:
    """The tokens that are to come."""
    tokens: list[int] = []
    forced = list(closing) if opened and most == 0 else []
    thought, closed = 0, bool(forced)
    for token in script:
        before = thinks("".join(PIECES[t] for t in tokens), opened)
        tokens.append(forced.pop(0) if forced else token)
        if not closed and thinks("".join(PIECES[t] for t in tokens), opened):
            thought += before
            if thought >= most:
                forced, closed = list(closing), True
    return tokens


@given(
    st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=12),
    st.sampled_from([(CLOSE,), (CLOSE, LINE), (*HALVES, LINE, LINE)]),
    st.integers(0, 5),
    st.booleans(),
)
def test_no_more_tokens_of_reasoning_than_asked_for(
    script: list[int], closing: tuple[int, ...], most: int, opened: bool
) -> None:
    reasoning = Reasoning(inside=opened, expected=True)
    script = script if opened else [OPEN, *script]
    found = say(script, closing, reasoning, max_thinking_tokens=most)
    assert found.token_ids == expected(script, closing, opened, most)
    free = say(script, closing, reasoning)
    if free.token_ids == found.token_ids:
        assert (free.text, free.reasoning) == (found.text, found.reasoning)
    assert found.finish_reason == "length" and found.usage.completion_tokens == len(script)


def test_what_is_closed_is_answered() -> None:
    script = [0] * 12
    for most in range(6):
        found = say(script, (CLOSE, LINE), Reasoning(inside=True), max_thinking_tokens=most)
        assert (found.reasoning, found.text) == (("a" * most) or None, "a" * (10 - most))
        assert found.token_ids[most : most + 2] == [CLOSE, LINE] and found.answered
    found = say([OPEN, *script], (CLOSE,), Reasoning(expected=True), max_thinking_tokens=2)
    assert (found.reasoning, found.text) == ("aa", "a" * 9)
    cut = say(script[:3], (CLOSE, LINE), Reasoning(inside=True), max_thinking_tokens=3)
    assert (cut.answered, cut.reasoning, cut.finish_reason) == (False, "aaa", "length")


def test_other_fields_do_not_keep_reasoning_open() -> None:
    """Bans and biases hold for what the model chooses; log probabilities are those of its logits."""
    banned = {"suppress_tokens": [CLOSE], "no_repeat_ngram_size": 9, "bad_words_ids": [[0, CLOSE]]}
    fields = {**banned, "logit_bias": {CLOSE: -100.0}, "presence_penalty": 0.5, "logprobs": 2, "min_new_tokens": 8}
    found = say([0] * 8, (CLOSE, LINE), Reasoning(inside=True), max_thinking_tokens=3, **fields)
    assert found.token_ids == [0, 0, 0, CLOSE, LINE, 0, 0, 0]
    plain = say([0] * 8, (CLOSE, LINE), Reasoning(inside=True), logprobs=2)
    assert [entry.token_id for entry in found.logprobs] == found.token_ids
    assert found.logprobs[3].top == plain.logprobs[3].top and found.logprobs[3].logprob < found.logprobs[2].logprob


def test_a_stop_text_counts_behind_it() -> None:
    found = say([0] * 9, (CLOSE,), Reasoning(inside=True), max_thinking_tokens=4, stop="aa")
    assert (found.reasoning, found.text, found.stop_reason) == ("aaaa", "", "aa")


@pytest.mark.parametrize("reasoning", [None, Reasoning()])
def test_without_reasoning_it_is_refused(reasoning: Reasoning | None) -> None:
    with pytest.raises(ConfigError, match=r"max_thinking_tokens=5: .* has no reasoning before it"):
        say([0], (CLOSE,), reasoning, max_thinking_tokens=5)
    manager = ToyManager(Script([0]), ToyCache(9, 4))
    with pytest.raises(ConfigError, match="max_thinking_tokens: this model has no tokenizer"):
        manager.submit(EncodedPrompt([0], Reasoning(inside=True)), SamplingParams(max_thinking_tokens=5))
    manager.close()
    with pytest.raises(ConfigError, match=r"max_thinking_tokens=-1 cannot be used: expected a whole number of at"):
        SamplingParams(max_thinking_tokens=-1)


# With real templates and tokenizers

CHAT = [{"role": "user", "content": "Which shape has three corners?"}]
END, THINK, THOUGHT = 2, 3, 4


def test_templates_say_how_reasoning_ends() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert closing_text(ChatTemplate(template)) == "</think>"
    before = template + "{% if enable_thinking is false %}{{ '<think></think>\n\n' }}{% endif %}"
    assert closing_text(ChatTemplate(before)) == "</think>\n\n"
    kept = "{% for m in messages %}{{ m.reasoning_content }}{% if m.reasoning_content %}</think>\n{% endif %}"
    assert closing_text(ChatTemplate(kept + "{{ m.content }}{% endfor %}")) == "</think>\n"
    broken = "{# enable_thinking #}{{ raise_exception('no') }}"
    assert closing_text(ChatTemplate(broken)) == "</think>"


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published templates are not on this machine")
@pytest.mark.parametrize(("name", "closing"), [("qwen3-0.6b", "</think>\n\n"), ("glm-4.7-flash", "</think>")])
def test_published_templates(name: str, closing: str) -> None:
    assert closing_text(ChatTemplate.from_folder(PUBLISHED / name)) == closing
    if name == "qwen3-0.6b":
        tokenizer = Tokenizer.from_folder(PUBLISHED / name)
        assert tokenizer is not None and tokenizer.encode(closing, add_special_tokens=False) == [151668, 271]


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with pio.load("demo", cache_tokens=8192, max_batch_sequences=8) as loaded:
        yield loaded


@pytest.fixture
def opened(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template whose prompts end within the reasoning."""
    source = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n<think>\n"
    behind = "{% if enable_thinking is false %}</think>\n\n{% endif %}"
    monkeypatch.setattr(model.loaded.prompts, "chat_template", ChatTemplate(source + behind))


FOREVER = {"logit_bias": {THOUGHT: -100.0, END: -100.0}, "seed": 3, "max_new_tokens": 80}  # it never ends by itself


@pytest.mark.usefixtures("opened")
def test_the_demo_model_answers(model: Any) -> None:
    """Whatever else is asked for: several answers, streams, log probabilities, alone and in a batch."""
    free = model.generate(CHAT, **FOREVER)
    assert not free.answered and free.reasoning
    behind = model.tokenize("\n\n")
    handles = [model.submit(CHAT, max_thinking_tokens=most, **FOREVER) for most in (0, 1, 7, 30)]
    for most, handle in zip((0, 1, 7, 30), handles, strict=True):
        result = handle.result()
        assert result.token_ids[:most] == free.token_ids[:most]
        assert result.token_ids[most : most + 1 + len(behind)] == [THOUGHT, *behind]
        assert result.answered and result.text and free.reasoning.startswith(result.reasoning or "")
        assert "".join(handle) == model.detokenize(result.token_ids)
        assert model.generate(CHAT, max_thinking_tokens=most, **FOREVER).token_ids == result.token_ids
    several = model.generate(CHAT, max_thinking_tokens=7, n=4, logprobs=1, **FOREVER)
    assert len({sample.text for sample in several.samples}) == 4
    for sample in several.samples:
        assert sample.token_ids[7] == THOUGHT and [entry.token_id for entry in sample.logprobs] == sample.token_ids
        alone = model.generate(CHAT, max_thinking_tokens=7, **{**FOREVER, "seed": sample.seed})
        assert alone.token_ids == sample.token_ids


def test_what_is_not_reached_changes_nothing(model: Any) -> None:
    for seed in range(12):
        fields = {"seed": seed, "max_new_tokens": 120, "logit_bias": {THINK: 100.0, THOUGHT: 6.0}, "logprobs": 1}
        free, limited = (model.generate(CHAT, **fields, **limit) for limit in ({}, {"max_thinking_tokens": 120}))
        assert (free.text, free.reasoning, free.token_ids, free.logprobs) == (
            limited.text,
            limited.reasoning,
            limited.token_ids,
            limited.logprobs,
        )


SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1, "maxItems": 3}


@pytest.mark.parametrize("most", [0, 5])
@pytest.mark.parametrize("opens", [False, True])
def test_a_shape_begins_behind_it(request: pytest.FixtureRequest, model: Any, most: int, opens: bool) -> None:
    if opens:
        request.getfixturevalue("opened")
    for seed in range(8):
        fields = {"seed": seed, "max_new_tokens": 200, "logit_bias": {THINK: 100.0, THOUGHT: -100.0}}
        result = model.generate(CHAT, max_thinking_tokens=most, response_format=SCHEMA, **fields)
        jsonschema.validate(result.parsed, SCHEMA)
        assert result.token_ids[most + (not opens)] == THOUGHT and result.finish_reason == "stop"
        assert (result.reasoning is None) == (most == 0)


def test_tokens_that_close_it_belong_to_no_answer(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape is not asked for them: between reasoning and answer it lets one token of line ends come by itself."""
    limits = model.loaded.manager._answers.thinking_limits
    (line,) = model.tokenize("\n")
    closing = (THOUGHT, line, line, line)
    monkeypatch.setitem(vars(limits), "_masks", tuple(TokenMask.only(token, 4096) for token in closing))
    fields = {"seed": 1, "max_new_tokens": 200, "logit_bias": {THINK: 100.0, THOUGHT: -100.0}}
    result = model.generate(CHAT, max_thinking_tokens=2, response_format=SCHEMA, **fields)
    jsonschema.validate(result.parsed, SCHEMA)
    assert result.token_ids[3:7] == [*closing]


def test_prompts_without_reasoning_are_refused_by_name(model: Any) -> None:
    for prompt, fields in (("def f(", {}), (CHAT, {"enable_thinking": False})):
        with pytest.raises(ConfigError, match="max_thinking_tokens=9: the answer to this prompt has no reasoning"):
            model.generate(prompt, max_thinking_tokens=9, **fields)
