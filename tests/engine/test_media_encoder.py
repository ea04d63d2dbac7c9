"""Pictures of prompts are encoded between steps: each once, for whoever waits, and for nobody else."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from toy_model import PagedToyCache, ToyCache, ToyModel, toy_greedy

from pio.engine.batch_manager import BatchManager
from pio.engine.media_encoder import TOGETHER, MediaEncoder
from pio.engine.sampling_params import SamplingParams
from pio.engine.sequence import Sequence as TokenSequence
from pio.errors import CancelledError, ConfigError, OutOfMemoryError, PioError
from pio.memory.budget import MemoryBudget
from pio.tensor import Tensor
from pio.text.encoded_prompt import EncodedPrompt, PlacedMedium, PromptPositions

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
    with pytest.raises(OutOfMemoryError, match=r"pictures of 4 tokens takes.*1049 bytes.*max_pixels.*memory_limit"):
        encoder.check([Medium("small").placed(), Medium("large", size=1001).placed()])
    many = [Medium(f"{i}", tokens=10).placed() for i in range(9)]
    with pytest.raises(OutOfMemoryError, match="pictures of 90 tokens"):
        encoder.check(many)  # each alone would fit
    with pytest.raises(ConfigError, match=r"media\[0\] has 2 tokens, found 3"):
        encoder.check([PlacedMedium(Medium("cat"), b"cat", (0,), 3)])


def test_pictures_share_a_run_only_where_there_is_memory_for_it() -> None:
    toy = ToyEncoder()
    encoder = MediaEncoder(toy, keep=1000, budget=MemoryBudget(1000))
    asked = [sequence(Medium(name, size=400).placed()) for name in ("a", "b", "c")]
    for one in asked:
        encoder.add(one)
    finish(encoder)
    assert toy.runs == [["a", "b"], ["c"]] and not any(one.missing for one in asked)


def test_pictures_that_do_not_fit_together_are_encoded_alone() -> None:
    class Narrow(ToyEncoder):
        """Finds out only when it begins that there is no room for two."""

        def encode(self, media: Sequence[Medium]) -> Generator[None, None, list[Any]]:
            if len(media) > 1:
                raise OutOfMemoryError("no room for two")
            return super().encode(media)

    toy = Narrow()
    encoder = MediaEncoder(toy, keep=1000)
    asked = [sequence(Medium(name).placed()) for name in ("a", "b", "c")]
    for one in asked:
        encoder.add(one)
    finish(encoder)
    assert toy.runs == [["a"], ["b"], ["c"]] and not any(one.missing for one in asked)


def test_what_is_kept_gives_way_to_a_picture_that_finds_no_memory() -> None:
    class Full(ToyEncoder):
        """As on a GPU, where what is kept lies too, and nobody knows before how much of it is left."""

        def encode(self, media: Sequence[Medium]) -> Generator[None, None, list[Any]]:
            if encoder.kept_bytes or media[0].name == "huge":
                raise OutOfMemoryError("no room beside another one")
            return super().encode(media)

    encoder, asked = MediaEncoder(Full(), keep=1000), [sequence(Medium(name).placed()) for name in ("a", "b")]
    for one in asked:
        encoder.add(one)
        finish(encoder)
        assert not one.missing
    encoder.add(sequence(Medium("huge").placed()))
    encoder.advance()
    assert not encoder.kept_bytes
    with pytest.raises(OutOfMemoryError):
        encoder.advance()


def test_what_is_kept_leaves_half_of_the_memory_to_others() -> None:
    budget = MemoryBudget(120)
    encoder = MediaEncoder(ToyEncoder(), keep=1000, budget=budget)
    for name in ("a", "b", "c", "d"):
        encoder.add(sequence(Medium(name, size=1).placed()))
        finish(encoder)
        assert encoder.kept_bytes <= 60


def test_others_may_ask_while_it_works() -> None:
    """Whoever submits looks at what is kept while the worker changes it."""
    toy = ToyEncoder()
    encoder = MediaEncoder(toy, keep=10 * 24, budget=MemoryBudget(1 << 30))
    stop, errors = threading.Event(), list[BaseException]()

    def ask() -> None:
        try:
            while not stop.is_set():
                encoder.check([Medium(f"{i}").placed() for i in range(20)])
        except BaseException as error:
            errors.append(error)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for i in range(400):
        encoder.add(sequence(Medium(f"{i % 30}").placed()))
        finish(encoder)
    stop.set()
    for asker in askers:
        asker.join()
    assert not errors and encoder.kept_bytes == 10 * 24


def manager(toy: ToyEncoder, **options: Any) -> tuple[BatchManager, ToyModel]:
    model, cache = ToyModel(**options), ToyCache(12, 4)
    model.encoder = toy
    return BatchManager(model, cache, media_cache=1000), model


def test_pictures_whose_tokens_are_in_the_cache_are_not_encoded() -> None:
    toy = ToyEncoder()
    encoder = MediaEncoder(toy, keep=0)
    cat, dog, owl = Medium("cat"), Medium("dog"), Medium("owl", tokens=4)
    asked = sequence(cat.placed(0), dog.placed(2), owl.placed(4, 6))
    encoder.add(asked, found=4)
    assert asked.missing == 1 and finish(encoder)
    assert toy.runs == [["owl"]] and [placed.key for placed in asked.media] == [b"cat", b"dog"]
    assert [given.first for given in asked.embeddings] == [4, 6] and not asked.missing
    encoder.add(asked, found=7)  # as long as they are there
    assert not encoder.busy and len(asked.media) == 2
    encoder.add(asked, found=3)
    assert asked.missing == 1 and finish(encoder)
    encoder.add(asked, found=1)
    assert finish(encoder) and not asked.media
    assert toy.runs == [["owl"], ["dog"], ["cat"]]
    assert sorted(given.first for given in asked.embeddings) == [0, 2, 4, 6]
    partly = sequence(owl.placed(2, 6))
    encoder.add(partly, found=7)
    assert partly.missing == 1, "its last token is still to be computed"
    encoder.forget(partly)
    twice = sequence(cat.placed(0), cat.placed(5))
    encoder.add(twice, found=4)  # of one picture all places are given, or none
    assert twice.missing == 2 and finish(encoder) and not twice.missing and not twice.media


class Rooms:
    """Requests for one picture in a small cache, one after another or together."""

    def __init__(self, blocks: int = 12) -> None:
        self.toy, self.model = ToyEncoder(), ToyModel()
        self.model.encoder = self.toy
        self.engine = BatchManager(self.model, PagedToyCache(blocks, 4), media_cache=0)

    def ask(self, *behind: int, count: int = 3) -> Any:
        prompt = [1, 2, 3, 4, 5, 6, 7, 8, *behind]
        fields = SamplingParams(temperature=0.0, max_new_tokens=count, ignore_eos=True)
        handle = self.engine.submit(EncodedPrompt(prompt, media=[Medium("cat").placed(2)]), fields)
        return handle, toy_greedy(prompt, count)


def test_a_picture_that_is_found_is_encoded_once_the_cache_has_lost_it() -> None:
    rooms = Rooms()
    for tail in (9, 10, 9):
        handle, expected = rooms.ask(tail)
        assert handle.result().token_ids == expected
    assert rooms.toy.runs == [["cat"]] and handle.result().usage.cached_tokens == 8
    rooms.engine.submit(EncodedPrompt([11] * 45), GREEDY).result()  # takes every block
    handle, expected = rooms.ask(9)
    assert handle.result().token_ids == expected and handle.result().usage.cached_tokens == 0
    assert rooms.toy.runs == [["cat"]] * 2
    rooms.engine.close()


def test_a_picture_that_is_lost_while_its_prompt_waits_is_encoded() -> None:
    """It was in the cache when the request came, and is not any more when there is room for it."""
    rooms = Rooms()
    rooms.ask(9)[0].result()
    rooms.model.slow = True
    first = rooms.engine.submit(EncodedPrompt([11] * 16), GREEDY.model_copy(update={"max_new_tokens": 30}))
    rooms.model.wait_for_step()
    handle, expected = rooms.ask(*[9] * 30)  # nine and a half blocks and one in reserve: too many now
    rooms.model.step()
    rooms.model.wait_for_step()
    assert rooms.toy.runs == [["cat"]], "nothing is encoded as long as it is there"
    rooms.model.slow = False
    rooms.model.step()
    assert handle.result().token_ids == expected and len(first.result().token_ids) == 30
    assert rooms.toy.runs == [["cat"]] * 2
    rooms.engine.close()


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


def slow(toy: ToyEncoder) -> tuple[threading.Event, threading.Event]:
    """Have encoding stop at its first piece until it may go on; what is set when it got there, and to go on."""
    begun, go = threading.Event(), threading.Event()
    encode = toy.encode

    def waiting(media: Sequence[Medium]) -> Generator[None, None, list[Any]]:
        begun.set()
        assert go.wait(60)
        return (yield from encode(media))

    toy.encode = waiting  # type: ignore[method-assign]
    return begun, go


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_what_ends_while_its_picture_is_encoded_leaves_nothing_behind(end: str) -> None:
    toy = ToyEncoder()
    engine, _ = manager(toy)
    begun, go = slow(toy)
    handle = engine.submit(EncodedPrompt([1, 2], media=[Medium("cat").placed()]), GREEDY)
    assert begun.wait(60)
    encoder = engine._encoder
    assert encoder is not None
    if end == "cancel":
        handle.cancel()
        go.set()
    else:
        assert engine._worker is not None
        engine._worker.stop()  # as closing does, which waits for the piece then
        go.set()
        engine.close()
        assert engine._encoder is None
    with pytest.raises(CancelledError):
        handle.result()
    if end == "cancel":
        assert engine.submit(EncodedPrompt([1, 2]), GREEDY).result().token_ids
        engine.close()
    assert toy.closed == [["cat"]] and not encoder.busy and not encoder.kept_bytes


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"positions": PromptPositions((array("i", [0, 1]), array("i", [0, 1])), 0)}, "positions are for"),
        ({"positions": PromptPositions((array("i", [0]),), 0)}, "positions are for"),
        ({"media": [Medium("cat").placed(1)]}, "tokens 1 to 2 show something"),
        ({"media": [Medium("cat").placed(-1)]}, "tokens -1 to 0"),
        ({"media": [Medium("cat").placed(0), Medium("dog").placed(0)]}, "something else already"),
        ({"media": [Medium("cat", tokens=3).placed(0, 2)]}, "2 stretches"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_places_outside_of_the_prompt_are_refused(given: dict[str, Any], says: str) -> None:
    engine, _ = manager(ToyEncoder())
    with pytest.raises(ConfigError, match=says):
        engine.submit(EncodedPrompt([1, 2], **given), GREEDY)
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
