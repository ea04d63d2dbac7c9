"""What ends an answer and what it is made of, with the demo model: stops, end tokens, defaults, reasoning."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pio
from pio.text.chat_template import ChatTemplate
from pio.text.reasoning import Reasoning

PROMPT = "def add(a, b):\n"
CHAT = [{"role": "user", "content": "Write a function that adds two numbers."}]
END, START, TEXT_END = 2, 1, 0  # <|im_end|>, <|im_start|>, <|endoftext|>
DEMO = Path(pio.__file__).parent / "demo"


@pytest.fixture(scope="module")
def model():
    with pio.load("demo") as loaded:
        yield loaded


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the demo model with other fields in its files; None takes a field out."""

    def make(**files: dict[str, Any]) -> Path:
        copy = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        shutil.copytree(DEMO, copy)
        for name, fields in files.items():
            file = copy / f"{name}.json"
            kept = {**json.loads(file.read_text("utf-8")), **fields}
            file.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}), "utf-8")
        return copy

    return make


def forced(model: Any, token: int, prompt: Any = PROMPT, **fields: Any) -> pio.Generation:
    """An answer whose tokens are all this one, until something ends it."""
    return model.generate(prompt, **{"max_new_tokens": 3, "temperature": 0, "logit_bias": {token: 100.0}, **fields})


# Stop texts


@pytest.mark.parametrize("text", ["<|im_start|>", "<|im_start|><|im_start|>"])
def test_a_stop_text_may_name_a_special_token(model, text):
    for skip in (True, False):
        found = forced(model, START, stop=[text], skip_special_tokens=skip)
        assert (found.finish_reason, found.stop_reason) == ("stop", text)
        assert found.usage.completion_tokens == (2 if "><" in text else 1)
        before = "" if skip else ("<|im_start|>" * 2).partition(text)[0]
        assert found.text == before
        shown = forced(model, START, stop=[text], skip_special_tokens=skip, include_stop=True)
        assert shown.text == before + text
        assert "".join(model.stream(PROMPT, {"stop": text, "logit_bias": {START: 100.0}}, max_new_tokens=3)) == ""


@pytest.mark.parametrize("text", ["start|>", "|><|im", "t", "<|"])
def test_letters_of_a_special_token_that_nobody_sees_are_no_stop_text(model, text):
    found = forced(model, START, stop=[text], include_stop=True)
    assert (found.finish_reason, found.stop_reason, found.text) == ("length", None, "")
    ended = forced(model, END, stop=[text, "e"], include_stop=True)
    assert (ended.finish_reason, ended.stop_reason, ended.usage.completion_tokens) == ("stop", END, 1)
    seen = forced(model, START, stop=[text], skip_special_tokens=False)
    assert (seen.finish_reason, seen.stop_reason) == ("stop", text)


def test_a_stop_text_of_a_special_token_and_text_that_does_not_come(model):
    free = model.generate(PROMPT, max_new_tokens=12, temperature=0)
    again = model.generate(PROMPT, max_new_tokens=12, temperature=0, stop=["<|im_start|>x", "<|im_start|>user"])
    assert (again.text, again.token_ids, again.stop_reason) == (free.text, free.token_ids, None)


# End tokens


@pytest.mark.parametrize(
    ("config", "generation", "ends", "goes_on"),
    [
        (None, None, [END], [TEXT_END]),  # by the tokenizer alone
        (TEXT_END, None, [END, TEXT_END], [7]),
        (None, [7], [END, 7], [TEXT_END]),
        ([TEXT_END], 7, [END, TEXT_END, 7], [9]),
    ],
)
def test_every_file_may_name_end_tokens(folder, config, generation, ends, goes_on):
    path = folder(config={"eos_token_id": config}, generation_config={"eos_token_id": generation})
    with pio.load(path) as model:
        for token in ends:
            found = forced(model, token)
            assert (found.finish_reason, found.stop_reason, found.text) == ("stop", token, "")
            assert forced(model, token, ignore_eos=True).finish_reason == "length"
        for token in goes_on:
            assert forced(model, token).finish_reason == "length"


def test_a_tokenizer_without_end_token(folder):
    path = folder(tokenizer_config={"eos_token": None}, generation_config={"eos_token_id": TEXT_END})
    with pio.load(path) as model:
        assert forced(model, TEXT_END).finish_reason == forced(model, END).finish_reason == "stop"
    with pio.load(folder(tokenizer_config={"eos_token": "<not there>"})) as model:
        assert forced(model, END).finish_reason == "stop"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config": {"eos_token_id": [2, 4096]}}, "config.json: eos_token_id is the token id 4096.* 0 to 4095"),
        ({"generation_config": {"eos_token_id": 5000}}, "generation_config.json: eos_token_id is the token id 5000"),
        (
            {"generation_config": {"eos_token_id": "<|im_end|>"}},
            r"generation_config.json: eos_token_id is <\|im_end\|>",
        ),
        ({"config": {"eos_token_id": [-1]}}, r"config.json: eos_token_id is \[-1\], expected a token id"),
        ({"generation_config": {"suppress_tokens": [4096]}}, "generation_config.json: suppress_tokens: token id 4096"),
        ({"generation_config": {"bad_words_ids": [[]]}}, "generation_config.json: bad_words_ids=.* expected a list of"),
        ({"generation_config": {"min_new_tokens": -3}}, "generation_config.json: min_new_tokens=-3"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_file(folder, files, words):
    with pytest.raises(pio.CheckpointError, match=words):
        pio.load(folder(**files))


# generation_config.json


def test_what_a_folder_asks_for_is_done(folder, model):
    free = model.generate(PROMPT, max_new_tokens=12, temperature=0)
    ids, stop = free.token_ids, free.text[2:6]
    asked: list[tuple[dict[str, Any], Callable[[pio.Generation], bool]]] = [
        ({"stop_strings": [stop]}, lambda found: found.text == free.text.partition(stop)[0]),
        ({"suppress_tokens": [ids[0]]}, lambda found: ids[0] not in found.token_ids),
        ({"begin_suppress_tokens": [ids[0]]}, lambda found: found.token_ids[0] != ids[0]),
        ({"bad_words_ids": [ids[:2]]}, lambda found: found.token_ids[0] == ids[0] and found.token_ids[1] != ids[1]),
        ({"no_repeat_ngram_size": 1}, lambda found: len(set(found.token_ids)) == 12),
        ({"max_new_tokens": 5}, lambda found: len(found.token_ids) == 12),  # the call has the last word
        ({"max_length": 5}, lambda found: len(found.token_ids) == 12),
    ]
    for fields, holds in asked:
        with pio.load(folder(generation_config={"do_sample": False, **fields})) as changed:
            found = changed.generate(PROMPT, max_new_tokens=12)
            assert holds(found), fields
            name, value = next(iter(fields.items()))
            named = {"stop" if name == "stop_strings" else name: value, "max_new_tokens": 12}
            assert model.generate(PROMPT, named, temperature=0).token_ids == found.token_ids
    with pio.load(folder(generation_config={"min_new_tokens": 4, "max_new_tokens": 6})) as changed:
        assert len(changed.generate(PROMPT, temperature=0).token_ids) == 6
        found = changed.generate(PROMPT, temperature=0, logit_bias={END: 100.0})
        assert len(found.token_ids) == 5 and found.token_ids[-1] == END and END not in found.token_ids[:-1]
        assert found.token_ids[:4] == ids[:4]
        assert (
            len(changed.generate(PROMPT, temperature=0, max_new_tokens=3).token_ids) == 3
        )  # the call has the last word
    with pio.load(folder(generation_config={"max_length": len(model.tokenize(PROMPT)) + 7})) as changed:
        assert len(changed.generate(PROMPT, temperature=0, ignore_eos=True).token_ids) == 7


def test_what_a_folder_asks_for_and_pio_cannot_do(folder):
    with pytest.raises(
        pio.UnsupportedModelError, match=r"generation_config.json: num_beams is 4, .*take the field out"
    ):
        pio.load(folder(generation_config={"num_beams": 4}))
    path = folder(generation_config={"stop_strings": ["x"]})
    (path / "tokenizer.json").unlink()
    with pytest.raises(pio.CheckpointError, match=r"stop_strings cannot be found without tokenizer.json"):
        pio.load(path)


# Reasoning


def opened(model, monkeypatch) -> None:
    """Give the demo model a template that opens the reasoning itself."""
    source = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n<think>\n"
    monkeypatch.setattr(model.loaded.prompts, "chat_template", ChatTemplate(source))


def streamed(model, inside: bool, **fields: Any) -> tuple[str, str]:
    """Reasoning and answer, as events have them; the stream has them with what tells them apart."""
    found = {"reasoning": "", "text": "", "markup": ""}
    whole = ""
    for event in model.submit(CHAT, **fields).events():
        found[event.kind] += event.text
        whole += event.text
    assert whole == "".join(model.stream(CHAT, **fields))
    splitter, again = Reasoning(inside=inside).splitter(), {"reasoning": "", "text": "", "markup": ""}
    for kind, piece in [*splitter.push(whole), *splitter.flush()]:
        again[kind] += piece
    assert again == found
    return found["reasoning"], found["text"]


def test_an_answer_cut_within_its_reasoning_is_no_answer(model, monkeypatch):
    think = model.tokenize("<think>")[0]
    fields = {"max_new_tokens": 4, "temperature": 0, "logit_bias": {think: 100.0}}
    found = model.generate(CHAT, **fields)
    assert (found.text, found.finish_reason, found.answered) == ("", "length", False)
    assert found.reasoning is not None and streamed(model, False, **fields) == (found.reasoning, "")
    with pytest.raises(
        pio.UnfinishedAnswerError, match=r"after 4 tokens, .* raise max_new_tokens .*generate\(\)"
    ) as caught:
        model.chat_completion(CHAT, **fields)
    assert caught.value.generation.token_ids == found.token_ids
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.generation == caught.value.generation

    opened(model, monkeypatch)
    for count in (1, 6):
        fields = {"max_new_tokens": count, "temperature": 0, "ignore_eos": True}
        found = model.generate(CHAT, **fields)
        assert (found.text, found.answered) == ("", False) and found.reasoning is not None
        assert streamed(model, True, **fields) == (found.reasoning, "")
        with pytest.raises(pio.UnfinishedAnswerError):
            model.chat_completion(CHAT, **fields)
    with pytest.raises(pio.UnfinishedAnswerError, match="at an end token"):
        model.chat_completion(CHAT, temperature=0, logit_bias={END: 100.0})
    assert forced(model, END).answered, "a prompt of text has no reasoning"


def test_who_thinks_may_take_the_rest_of_the_context(model, monkeypatch):
    fields = {"ignore_eos": True, "temperature": 0}
    with pio.load("demo", context_length=600) as small:
        prompt = len(small.tokenize(small.apply_chat_template(CHAT)))
        assert small.generate(CHAT, **fields).usage.completion_tokens == 600 - prompt
        assert small.generate(CHAT, enable_thinking=False, **fields).usage.completion_tokens == 256
        assert small.generate(PROMPT, **fields).usage.completion_tokens == 256
        assert small.generate(CHAT, max_new_tokens=9, **fields).usage.completion_tokens == 9
        opened(small, monkeypatch)
        assert small.generate(CHAT, **fields).usage.total_tokens == 600


def test_a_stop_text_lets_the_model_think(model, monkeypatch):
    opened(model, monkeypatch)
    close = model.tokenize("</think>")[0]
    fields = {"max_new_tokens": 5, "temperature": 0, "ignore_eos": True}
    said = model.generate(CHAT, **fields)
    assert said.reasoning
    stop = said.reasoning[1:3]
    again = model.generate(CHAT, stop=stop, **fields)
    assert (again.token_ids, again.reasoning, again.stop_reason) == (said.token_ids, said.reasoning, None)
    assert streamed(model, True, stop=stop, **fields) == (said.reasoning, "")
    found = model.generate(CHAT, stop="</think>", logit_bias={close: 100.0}, **fields)  # the tags in an answer are text
    assert (found.reasoning, found.text, found.usage.completion_tokens) == (None, "", 2)
    assert model.chat_completion(CHAT, stop="</think>", logit_bias={close: 100.0}, **fields) == ""
