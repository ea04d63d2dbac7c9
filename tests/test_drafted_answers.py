"""Answers of every kind are the same with drafts: formats, reasoning, stops, biases, in full batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from drafters import EveryDraft, RandomDrafter
from hypothesis import given, settings
from hypothesis import strategies as st

import pio
from pio.engine.drafts.gate import MeasuredGate
from pio.engine.drafts.speculation import Speculation
from pio.engine.drafts.suffix_drafter import SuffixDrafter

ROOM = 1 << 30  # bytes of indexes, more than any test needs

SPECIAL = range(16)  # ids of the demo model's special tokens
NO_TIME = pio.Timings(0, 0, 0, 0, 0)
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["circle", "square"]}, "sides": {"type": "array", "items": {"type": "integer"}}},
    "required": ["kind", "sides"],
}
FORMATS = [["yes", "no", "not now"], "regex:[0-9]{3}-[a-f]{2,9}", SCHEMA, {"type": "json_object"}]
CHAT = [{"role": "user", "content": "Write a function"}]
fields = st.fixed_dictionaries(
    {"max_new_tokens": st.integers(1, 24), "seed": st.integers(0, 2**64 - 1)},
    optional={
        "temperature": st.sampled_from([0.0, 0.7, 3.0]),
        "logit_bias": st.dictionaries(st.sampled_from(SPECIAL), st.sampled_from([5.0, 12.0, 20.0]), max_size=6),
        "stop": st.lists(st.sampled_from(["\n", "e", "):", "</think>", "e<|im_end|>", " "]), min_size=1, max_size=3),
        "include_stop": st.booleans(),
        "skip_special_tokens": st.booleans(),
        "min_new_tokens": st.integers(0, 20),
        "no_repeat_ngram_size": st.integers(0, 4),
        "frequency_penalty": st.sampled_from([-1.0, 0.5]),
        "logprobs": st.integers(0, 3),
        "n": st.integers(1, 3),
        "response_format": st.sampled_from(FORMATS),
        "max_thinking_tokens": st.integers(0, 9),
    },
)


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with pio.load("demo", context_length=256, cache_tokens=4096, progress=False) as loaded:
        yield loaded


def told(result: Any) -> list[Any]:
    """All of an answer but what it took, and what others had computed of its prompt."""
    return [
        replace(answer, timings=NO_TIME, samples=(), read_parsed=None, usage=replace(answer.usage, cached_tokens=0))
        for answer in (result, *result.samples)
    ]


def outcome(model: Any, prompt: Any, fields: dict[str, Any]) -> Any:
    """Results and events of a request, or the error that it ends with; the events of each answer in their order."""
    try:
        handle = model.submit(prompt, **fields)
        return told(handle.result()), sorted(handle.events(), key=lambda event: event.sample)
    except pio.PioError as error:
        return type(error), str(error)


@settings(max_examples=40)
@given(
    prompt=st.sampled_from(["def f(", "# café €", "x = [1, 2, 3]\ny = [1, 2, 3]\nz = [1,", CHAT]),
    fields=fields,
    draft=st.integers(0, 1 << 32),
)
def test_any_fields_together(model: Any, prompt: Any, fields: dict[str, Any], draft: int) -> None:
    fields["max_new_tokens"] += fields.get("min_new_tokens", 0)  # or they would contradict each other
    if prompt is not CHAT:  # without reasoning it is refused
        fields.pop("max_thinking_tokens", None)
    speculation = model.loaded.manager.speculation
    speculation.drafter = None
    expected = outcome(model, prompt, fields)
    truth = [answer.token_ids for answer in expected[0]] if isinstance(expected[0], list) else []

    def known(sequence: Any) -> list[int]:
        so_far = list(sequence.tokens[sequence.prompt_length :])
        return next((tokens for tokens in truth if tokens[: len(so_far)] == so_far), [])

    speculation.gate = EveryDraft()
    for drafter in (RandomDrafter(draft, model.metadata.vocab_size, known), SuffixDrafter(1 << 20, ROOM)):
        speculation.drafter = drafter
        assert outcome(model, prompt, fields) == expected
    stats = model.stats()
    assert (stats.free_blocks, stats.running) == (stats.blocks, 0)


@pytest.mark.parametrize("together", [1, 8, 16])
def test_formats_in_full_batches(model: Any, together: int) -> None:
    """Each is valid, and what it is without drafts; with reasoning before it and without."""
    requests = [
        (CHAT if i % 2 else "x = ", {"response_format": SCHEMA, "seed": i, "temperature": 1.0, "max_new_tokens": 150})
        for i in range(together)
    ]
    speculation = model.loaded.manager.speculation
    speculation.drafter = None
    expected = [outcome(model, *request) for request in requests]
    speculation.drafter, speculation.gate = SuffixDrafter(1 << 20, ROOM), EveryDraft()
    for _ in range(2):  # the second time earlier answers foresee all of it
        before = model.stats()
        handles = [model.submit(prompt, **fields) for prompt, fields in requests]
        found = [(told(h.result()), sorted(h.events(), key=lambda event: event.sample)) for h in handles]
        assert found == expected
    assert model.stats().accepted_tokens - before.accepted_tokens > 20 * together
    speculation.gate = MeasuredGate()


def test_a_stop_text_within_an_accepted_draft_ends_the_answer_there(model: Any) -> None:
    speculation = model.loaded.manager.speculation
    speculation.drafter = None
    whole = model.generate("def f(", max_new_tokens=30, temperature=0.0, ignore_eos=True)
    stop = whole.text[len(whole.text) // 2 :][:4]
    expected = model.generate("def f(", max_new_tokens=30, temperature=0.0, ignore_eos=True, stop=stop)
    drafter = RandomDrafter(1, model.metadata.vocab_size, lambda sequence: whole.token_ids)
    drafter.always = True
    speculation.drafter, speculation.gate = drafter, EveryDraft()
    found = model.generate("def f(", max_new_tokens=30, temperature=0.0, ignore_eos=True, stop=stop)
    assert (found.text, found.stop_reason, found.token_ids) == (expected.text, stop, expected.token_ids)
    assert found.timings.checks < len(found.token_ids) < len(whole.token_ids)
    assert found.timings.accepted < found.timings.drafted


def test_events_come_one_a_token(model: Any) -> None:
    speculation = model.loaded.manager.speculation
    speculation.drafter = None
    whole = model.generate("def f(", max_new_tokens=30, temperature=0.0, ignore_eos=True)
    drafter = RandomDrafter(1, model.metadata.vocab_size, lambda sequence: whole.token_ids)
    drafter.always = True
    speculation.drafter, speculation.gate = drafter, EveryDraft()
    handle = model.submit("def f(", max_new_tokens=30, temperature=0.0, ignore_eos=True)
    assert [event.token_id for event in handle.events()] == whole.token_ids
    assert [event.position for event in handle.events()] == list(range(30))
    assert "".join(model.stream("def f(", max_new_tokens=30, temperature=0.0, ignore_eos=True)) == whole.text
    assert handle.result().timings.checks == 2


def test_the_options(model: Any) -> None:
    with pytest.raises(pio.ConfigError, match=r"max_draft_tokens=4 is of no use with speculation='off'"):
        pio.load("demo", speculation="off", max_draft_tokens=4)
    with pytest.raises(pio.ConfigError, match="speculation is 'on': expected 'auto' or 'off'"):
        pio.load("demo", speculation="on")
    with pytest.raises(pio.ConfigError, match="max_draft_tokens is '0': expected at least 1"):
        pio.load("demo", max_draft_tokens=0)
    rows = model.loaded.model.max_batch_outputs
    assert (rows, model.loaded.manager.speculation.most) == (16, 15)
    with pio.load("demo", context_length=256, max_draft_tokens=40, progress=False) as longer:
        assert (longer.loaded.model.max_batch_outputs, longer.loaded.manager.speculation.most) == (41, 40)
        vocabulary, width = longer.metadata.vocab_size, longer.loaded.model.hidden_size
        long, short = (m.metadata.memory["buffers"] - m.loaded.manager.speculation.nbytes for m in (longer, model))
        more = long - short
        assert 0 <= more - 4 * 25 * (vocabulary + width) < 1024
        longer.update(speculation="off")  # and with it goes what says nothing then
        assert longer.loaded.manager.speculation is None
        assert longer.generate("def f(", max_new_tokens=8).timings.speculation == "off"


def test_drafts_end_before_the_context_does(model: Any) -> None:
    speculation = model.loaded.manager.speculation
    speculation.drafter = None
    prompt = model.tokenize("x = [1, 2, 3]\n" * 60)[:240]
    expected = model.generate(prompt, temperature=0.0, max_new_tokens=100, ignore_eos=True)
    assert len(expected.token_ids) == 16
    speculation.drafter, speculation.gate = SuffixDrafter(0, ROOM), EveryDraft()
    found = model.generate(prompt, temperature=0.0, max_new_tokens=100, ignore_eos=True)
    assert (found.token_ids, found.finish_reason) == (expected.token_ids, "length")
    assert found.timings.drafted > 0


def test_earlier_answers_take_at_most_a_twentieth_of_the_cache(model: Any) -> None:
    made = model.loaded.manager.speculation
    with pio.load("demo", context_length=256, progress=False) as other:
        speculation = other.loaded.manager.speculation
        assert isinstance(speculation, Speculation) and isinstance(speculation.drafter, SuffixDrafter)
        for _ in range(20):
            other.generate("def f(", max_new_tokens=100, ignore_eos=True)
        tables = [t for part in speculation.drafter.history.of(None) for t in (part._heads, part._chain, part.tokens)]
        assert 0 < sum(map(sys.getsizeof, tables)) <= other.loaded.cache.nbytes / 20
        told, held = other.metadata.memory, other.loaded.cache.nbytes // 20
        assert held < speculation.nbytes <= 2 * held
        sampler = other.loaded.manager.nbytes - speculation.nbytes  # made behind it, larger with more threads
    assert made is not speculation
    with pio.load("demo", context_length=256, progress=False, speculation="off") as without:
        assert without.metadata.memory == {**told, "buffers": told["buffers"] - speculation.nbytes}
    with pytest.raises(pio.OutOfMemoryError, match=r"texts that drafts are found in \(none with speculation='off'\)"):
        pio.load("demo", context_length=256, progress=False, memory_limit=sum(told.values()) - sampler - 1)
