"""Embeddings that come with a prompt: those of other tokens must give what these tokens give, to the bit."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import pio
from pio import EncodedPrompt, PromptEmbeddings
from pio.cache.batch import Batch
from pio.dtypes import int32
from pio.memory.allocation import allocated_bytes
from pio.tensor import Tensor
from pio.testing.compare import bits

TOKENS = [5, 11, 17, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61]
OTHER = 3  # in the place of tokens whose embeddings are given
GREEDY = {"temperature": 0.0, "max_new_tokens": 9, "ignore_eos": True}


@pytest.fixture(scope="module", params=[{}, {"prefill_chunk": 3}, {"quantize": "int4", "prefill_chunk": 4}], ids=str)
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    with pio.load("demo", cache_tokens=256, **request.param) as loaded:
        yield loaded


def rows(model: Any, tokens: list[int]) -> Tensor:
    """What the model's own table holds."""
    decoder = model.loaded.model
    return decoder.embed_tokens(Tensor.from_list(tokens, int32), Tensor.zeros((len(tokens), decoder.hidden_size)))


def hidden(model: Any, *stretches: tuple[int, int]) -> EncodedPrompt:
    """The prompt with the tokens of these stretches hidden behind their embeddings."""
    ids = list(TOKENS)
    for first, last in stretches:
        ids[first:last] = [OTHER] * (last - first)
    return EncodedPrompt(ids, embeddings=[PromptEmbeddings(a, rows(model, TOKENS[a:b])) for a, b in stretches])


@pytest.mark.parametrize("stretches", [[(0, 13)], [(0, 1)], [(12, 13)], [(9, 12), (2, 7)], [(3, 6), (6, 8)]], ids=str)
def test_rows_of_other_tokens_give_what_these_give(model: Any, stretches: list[tuple[int, int]]) -> None:
    prompt = hidden(model, *stretches)
    assert bits(model.logits(prompt)) == bits(model.logits(TOKENS))
    assert bits(model.logits(TOKENS)) != bits(model.logits(prompt.token_ids)), "nothing is left of them afterwards"
    several = {"n": 2, "seed": 7, "temperature": 1.5, "max_new_tokens": 9, "ignore_eos": True}
    found, expected = (model.generate(p, **several).samples for p in (prompt, TOKENS))
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in expected]


def test_beside_other_requests(model: Any) -> None:
    alone = model.generate(TOKENS, **GREEDY).token_ids
    prompts = [hidden(model, (4, 11)), EncodedPrompt([OTHER] * 13), hidden(model, (0, 5)), EncodedPrompt(TOKENS)]
    expected = [alone, model.generate([OTHER] * 13, **GREEDY).token_ids, alone, alone]
    handles = [model.submit(prompt, **GREEDY) for prompt in prompts]
    assert [handle.result().token_ids for handle in handles] == expected


def test_an_answer_that_gives_way_takes_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pio.load("demo", cache_tokens=96, max_batch_sequences=3) as model:
        options = {**GREEDY, "max_new_tokens": 40}
        expected = model.generate(TOKENS, **options).token_ids
        all_there, forward, read = threading.Event(), model.loaded.model.forward, model.stats().prompt_tokens

        def wait(*arguments: Any) -> Any:
            assert all_there.wait(60)
            return forward(*arguments)

        monkeypatch.setattr(model.loaded.model, "forward", wait)
        handles = [model.submit(hidden(model, (1, 9)), **options) for _ in range(3)]
        all_there.set()
        assert [handle.result().token_ids for handle in handles] == [expected] * 3
        assert model.stats().prompt_tokens - read > 3 * len(TOKENS), "one has read its prompt again"


@pytest.mark.parametrize(
    ("embeddings", "words"),
    [
        ([(0, [[1.0] * 7])], r"embeddings\[0\]: rows have 7 numbers each.*have (\d+)"),
        ([(12, 2)], r"embeddings\[0\]: its 2 rows are for the tokens 12 to 13, and the prompt has 13; give as many"),
        ([(-1, 1)], "for the tokens -1 to -1"),
        ([(5, 2), (0, 6)], r"embeddings\[0\]: token 5 has embeddings from another stretch"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(model: Any, embeddings: list[Any], words: str) -> None:
    width = model.loaded.model.hidden_size
    given = [(a, Tensor.from_list(r) if isinstance(r, list) else Tensor.zeros((r, width))) for a, r in embeddings]
    prompt = EncodedPrompt(TOKENS, embeddings=[PromptEmbeddings(*stretch) for stretch in given])
    for act in (model.generate, model.logits):
        with pytest.raises(pio.ConfigError, match=words):
            act(prompt)


def test_rows_of_another_form_are_refused_by_name(model: Any) -> None:
    width = model.loaded.model.hidden_size
    for bad, found in (
        ([[0.0] * width], "rows are a list"),
        (Tensor.zeros((1, width), "float16"), "float16"),
        (Tensor.zeros((width,)), r"float32 \(\d+,\)"),
        (Tensor.zeros((2, 2 * width))[:, ::2], "strided float32"),
    ):
        with pytest.raises(pio.ConfigError, match=rf"embeddings\[0\]: .*{found}.*expected contiguous float32 \(n, "):
            model.generate(EncodedPrompt(TOKENS, embeddings=[PromptEmbeddings(0, bad)]))


def test_what_is_no_stretch_is_refused_by_name_and_disturbs_nobody(model: Any) -> None:
    rows = Tensor.zeros((1, model.loaded.model.hidden_size))
    freed = Tensor.zeros((1, model.loaded.model.hidden_size))
    freed.storage.free()
    beside = model.submit(TOKENS, **GREEDY)
    for bad, found in (
        ((0, rows), "expected pio.PromptEmbeddings"),
        (PromptEmbeddings(0.0, rows), "with an int first"),  # type: ignore[arg-type]
        (PromptEmbeddings(True, rows), "with an int first"),
        (PromptEmbeddings(0, freed), "was freed"),
    ):
        with pytest.raises(pio.ConfigError, match=rf"embeddings\[0\]: .*{found}"):
            model.generate(EncodedPrompt(TOKENS, embeddings=[bad]))
    assert beside.result().token_ids == model.generate(TOKENS, **GREEDY).token_ids


def test_rows_go_with_their_request(model: Any) -> None:
    gc.collect()
    before = allocated_bytes()
    prompt = hidden(model, (2, 9))
    model.generate(prompt, temperature=0.0, max_new_tokens=1)
    del prompt
    gc.collect()
    assert allocated_bytes() == before


def test_rows_that_are_no_numbers_are_an_error(model: Any) -> None:
    nan = Tensor.full((1, model.loaded.model.hidden_size), float("nan"))
    with pytest.raises(pio.NumericalError):
        model.generate(EncodedPrompt(TOKENS, embeddings=[PromptEmbeddings(3, nan)]))
    assert model.generate(TOKENS, **GREEDY).token_ids


def test_a_batch_keeps_rows_until_it_is_begun_anew() -> None:
    batch, given = Batch(6, 2, 1, 2), Tensor.full((2, 8), 1.5)
    batch.add([1, 2, 3], 0, [0], 1)
    for first in (-1, 2):
        with pytest.raises(pio.CapacityError, match=f"2 rows of embeddings from token {first} on: the batch has 3"):
            batch.place(first, given)
    batch.place(1, given)
    address = given.address
    assert batch.embeddings.tolist() == [0, address, address + 32, 0, 0, 0]
    held = allocated_bytes()
    del given
    assert allocated_bytes() == held
    batch.begin()
    assert batch.embeddings.tolist() == [0] * 6 and allocated_bytes() == held - 64
    batch.add([1, 2, 3], 0, [0], 1)
    with pytest.raises(pio.TensorError, match=r"Batch\.place: rows"):
        batch.place(0, Tensor.zeros((2, 8), "float16"))
