"""Pictures of prompts are encoded between steps: each once, for whoever waits, and for nobody else."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from toy_model import ToyCache, ToyModel

from pio.engine.batch_manager import BatchManager
from pio.engine.media_encoder import TOGETHER, MediaEncoder
from pio.engine.sampling_params import SamplingParams
from pio.engine.sequence import Sequence as TokenSequence
from pio.errors import CancelledError, ConfigError, OutOfMemoryError, PioError
from pio.memory.budget import MemoryBudget
from pio.tensor import Tensor
from pio.text.encoded_prompt import EncodedPrompt, PlacedMedium

PIECES = 3
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=3, ignore_eos=True)


class Medium:
    """A picture of so many tokens; it may take more memory than there is, or break."""

    def __init__(self, name: str, tokens: int = 2, size: int = 100, error: BaseException | None = None) -> None:
        self.name, self.tokens, self.size, self.error = name, tokens, size, error

    def placed(self, *places: int) -> PlacedMedium:
        return PlacedMedium(self, self.name.encode(), places or (0,), self.tokens)


class ToyEncoder:
    """Takes three pieces for whatever it encodes together, and tells what it did."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.closed: list[list[str]] = []

    def encode(self, media: Sequence[Medium]) -> Generator[None, None, list[Any]]:
        self.runs.append([medium.name for medium in media])
        try:
            for _ in range(PIECES - 1):
                for medium in media:
                    if medium.error is not None:
                        raise medium.error
                yield
        except GeneratorExit:
            self.closed.append(self.runs[-1])
            raise
        return [(Tensor.full((medium.tokens, 3), float(len(medium.name))), ()) for medium in media]

    def working_bytes(self, media: Sequence[Medium]) -> int:
        return sum(medium.size for medium in media)

    def embeddings_bytes(self, medium: Medium) -> int:
        return medium.tokens * 12

    def tokens(self, medium: Medium) -> int:
        return medium.tokens


def sequence(*media: PlacedMedium) -> TokenSequence:
    consumer: Any = None
    return TokenSequence(consumer, array("i", range(8)), media=media)


def finish(encoder: MediaEncoder) -> int:
    pieces = 0
    while encoder.busy:
        encoder.advance()
        pieces += 1
    return pieces


def test_who_waits_for_one_picture_gets_one_encoding() -> None:
    toy = ToyEncoder()
    encoder = MediaEncoder(toy, keep=1000)
    cat, dog = Medium("cat"), Medium("dog", tokens=4)
    one, both, other = sequence(cat.placed(3)), sequence(dog.placed(0, 5), cat.placed(2)), sequence()
    for waiting in (one, both, other):
        encoder.add(waiting)
    assert (one.missing, both.missing, other.missing) == (1, 2, 0)
    assert finish(encoder) == PIECES, "small pictures share a run"
    assert toy.runs == [["cat", "dog"]] and encoder.encoded == 2
    assert not one.missing and not both.missing
    assert [given.first for given in one.embeddings] == [3]
    assert sorted(given.first for given in both.embeddings) == [0, 2, 5]  # a video has rows in several places
    assert {given.rows.shape for given in both.embeddings} == {(2, 3)}


def test_a_picture_that_stands_in_a_prompt_twice_is_encoded_once() -> None:
    toy = ToyEncoder()
    encoder, cat = MediaEncoder(toy, keep=1000), Medium("cat")
    twice = sequence(cat.placed(0), cat.placed(4))
    encoder.add(twice)
    finish(encoder)
    assert toy.runs == [["cat"]] and not twice.missing
    assert sorted(given.first for given in twice.embeddings) == [0, 4]


def test_what_was_used_last_is_kept() -> None:
    toy = ToyEncoder()
    encoder = MediaEncoder(toy, keep=50)  # two pictures of 24 bytes
    media = [Medium(name) for name in ("a", "bb", "ccc")]
    for medium in (media[0], media[1], media[0], media[2], media[0], media[1]):
        asked = sequence(medium.placed())
        encoder.add(asked)
        finish(encoder)
        assert not asked.missing and asked.embeddings[0].rows.tolist()[0] == [len(medium.name)] * 3
    assert toy.runs == [["a"], ["bb"], ["ccc"], ["bb"]]
    assert encoder.kept_bytes == 48


def test_large_pictures_are_encoded_one_after_the_other() -> None:
    toy = ToyEncoder()
    encoder = MediaEncoder(toy, keep=0)
    for name in ("a", "b", "c"):
        encoder.add(sequence(Medium(name, size=TOGETHER).placed()))
    assert finish(encoder) == 3 * PIECES
    assert toy.runs == [["a"], ["b"], ["c"]] and not encoder.kept_bytes


def test_what_nobody_waits_for_any_more_is_stopped() -> None:
    toy = ToyEncoder()
    encoder, cat = MediaEncoder(toy, keep=1000), Medium("cat", size=TOGETHER)
    first, second, third = sequence(cat.placed()), sequence(cat.placed()), sequence(Medium("dog").placed())
    for waiting in (first, second, third):
        encoder.add(waiting)
    encoder.advance()
    encoder.forget(first)
    assert not toy.closed, "another one waits for it"
    encoder.forget(second)
    assert toy.closed == [["cat"]]
    finish(encoder)
    assert toy.runs == [["cat"], ["dog"]] and not third.missing and first.missing
    encoder.add(again := sequence(cat.placed()))
    assert again.missing, "half a picture is not kept"


def test_memory_that_a_picture_takes_is_refused_before_it_is_queued() -> None:
    budget = MemoryBudget(1000)
    encoder = MediaEncoder(ToyEncoder(), keep=1000, budget=budget)
    encoder.check([Medium("small", size=900).placed()])
    with pytest.raises(
        OutOfMemoryError, match=r"picture 1 has 2 tokens.*1,025 B|picture 1.*smaller picture"
    ) as refused:
        encoder.check([Medium("small").placed(), Medium("large", size=1001).placed()])
    assert "memory_limit" in str(refused.value) and "max_pixels" in str(refused.value)


def manager(toy: ToyEncoder, **options: Any) -> tuple[BatchManager, ToyModel]:
    model, cache = ToyModel(**options), ToyCache(12, 4)
    model.encoder = toy
    return BatchManager(model, cache, media_cache=1000), model


def test_a_prompt_waits_for_its_picture_and_others_pass() -> None:
    toy = ToyEncoder()
    engine, model = manager(toy)
    seen = EncodedPrompt([1, 2, 3, 4], media=[Medium("cat").placed(1)])
    model.slow = True
    first = engine.submit(seen, GREEDY)
    second = engine.submit(EncodedPrompt([1, 2, 3, 4]), GREEDY)
    model.step(40)
    assert first.result().token_ids == second.result().token_ids  # the toy looks at no embedding
    begun = [[past for _, past in step] for step in model.steps]
    assert begun[0] == [0], "the text began while the picture was encoded"
    assert toy.runs == [["cat"]]
    engine.close()


@pytest.mark.parametrize("error", [OutOfMemoryError("no room"), ValueError("broken")], ids=repr)
def test_a_picture_that_fails_ends_those_who_wait_for_it(error: Exception) -> None:
    toy = ToyEncoder()
    engine, _ = manager(toy)
    bad = engine.submit(EncodedPrompt([1, 2], media=[Medium("bad", size=TOGETHER, error=error).placed()]), GREEDY)
    good = engine.submit(EncodedPrompt([1, 2], media=[Medium("good").placed()]), GREEDY)
    text = engine.submit(EncodedPrompt([1, 2]), GREEDY)
    with pytest.raises(PioError, match=str(error)):
        bad.result()
    assert good.result().token_ids == text.result().token_ids
    engine.close()


def test_cancelled_and_closed_requests_leave_nothing_behind() -> None:
    toy = ToyEncoder()
    engine, _ = manager(toy)
    handle = engine.submit(EncodedPrompt([1, 2], media=[Medium("cat").placed()]), GREEDY)
    handle.cancel()
    with pytest.raises(CancelledError):
        handle.result()
    assert engine.submit(EncodedPrompt([1, 2], media=[Medium("dog").placed()]), GREEDY).result().token_ids
    engine.close()


def test_several_answers_about_one_picture() -> None:
    toy = ToyEncoder()
    engine, _ = manager(toy)
    params = SamplingParams(temperature=1.0, seed=3, n=3, max_new_tokens=3, ignore_eos=True)
    found = engine.submit(EncodedPrompt([1, 2, 3], media=[Medium("cat").placed()]), params).result()
    plain = engine.submit(EncodedPrompt([1, 2, 3]), params).result()
    assert [one.token_ids for one in found.samples] == [one.token_ids for one in plain.samples]
    assert toy.runs == [["cat"]]
    engine.close()


def test_a_model_for_text_refuses_pictures() -> None:
    engine = BatchManager(ToyModel(), ToyCache(4, 4))
    with pytest.raises(ConfigError, match="reads text alone"):
        engine.submit(EncodedPrompt([1, 2], media=[Medium("cat").placed()]), GREEDY)
    engine.close()
