"""Checkpoints that see must answer as transformers does, however their pictures are cut, batched or encoded again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import vision_case as golden
from golden_case import NEW_TOKENS, PROFILES

import pio

EXACT, TOLERANCE, ROUNDED = 1e-4, 2e-3, 2e-2  # relative L2 of logits; the last is for inputs rounded to bfloat16
COSINE, TOWER = 0.99999, 1e-5  # of what the tower gives; the second, relative L2, is for float32 weights


def prompt(request: golden.RequestAsked) -> Any:
    """What a caller gives: the token ids, and what their marks stand for."""
    if not request.pictures and not request.videos:
        return request.prompt
    videos = [{"video": video.frames, "fps": video.fps} for video in request.videos]
    return {"text": request.prompt, "images": request.pictures, "videos": videos}


def greedy(model: Any, given: Any) -> list[int]:
    return model.generate(given, temperature=0.0, max_new_tokens=NEW_TOKENS, ignore_eos=True).token_ids


def load(case: str, **options: Any) -> Any:
    return pio.load(golden.FOLDER / case, **options)


@pytest.fixture(scope="module", params=golden.CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(case: str) -> Iterator[Any]:
    with load(case) as loaded:
        yield loaded


def test_tokens_and_their_places_are_the_processors(model: Any, case: str) -> None:
    for request in golden.requests(case):
        found = model.loaded.prompts.encode(prompt(request))
        assert list(found.token_ids) == request.ids, request.name
        if request.pictures or request.videos:
            assert [list(axis) for axis in found.positions.axes] == request.positions, request.name
            assert found.positions.shift == request.rope_delta, request.name
            grids = [list(placed.medium.grid) for placed in found.media if placed.medium.kind == "image"]
            assert grids == request.grids, request.name


@pytest.mark.parametrize("profile", PROFILES)
def test_logits_and_greedy_tokens(case: str, profile: str) -> None:
    dtype = golden.answers(case)["dtype"]
    rounded = ROUNDED if dtype == "bfloat16" and profile == "performance" else TOLERANCE
    allowed = EXACT if dtype == "float32" else rounded
    expected = golden.expected_logits(case)
    with load(case, profile=profile) as model:
        for request in golden.requests(case):
            found = model.logits(prompt(request))
            wanted = expected[request.index]
            assert list(found.shape) == wanted.shape, request.name
            error = golden.relative_l2([value for row in found.tolist() for value in row], wanted.values)
            assert error <= allowed, f"{request.name}: {error:.2e}"
            if allowed <= TOLERANCE:
                assert greedy(model, prompt(request)) == request.greedy, request.name


def test_the_tower_gives_what_transformers_gives(model: Any, case: str) -> None:
    tower = model.loaded.model.encoder
    by_index = {request.index: request for request in golden.requests(case)}
    compared = 0
    for index, wanted in golden.expected_tower(case).items():
        if index not in by_index:
            continue
        media = [placed.medium for placed in model.loaded.prompts.encode(prompt(by_index[index])).media]
        run = tower.encode(media)
        while True:
            try:
                next(run)
            except StopIteration as done:
                found = done.value
                break
        for kind in ("image", "video"):
            chosen = [rows for medium, rows in zip(media, found, strict=True) if medium.kind == kind]
            if not chosen:
                continue
            levels = [[rows, *additions] for rows, additions in chosen]
            names = [f"{kind}.merged", *(f"{kind}.deepstack.{i}" for i in range(len(levels[0]) - 1))]
            for number, name in enumerate(names):
                flat = [value for parts in levels for row in parts[number].tolist() for value in row]
                assert golden.cosine(flat, wanted[name].values) >= COSINE, (index, name)
                if golden.answers(case)["dtype"] == "float32":
                    assert golden.relative_l2(flat, wanted[name].values) <= TOWER, (index, name)
                compared += 1
    assert compared


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"kv_cache_dtype": "int8"}], ids=str)
def test_the_bits_do_not_depend_on_how_a_prompt_is_cut(case: str, options: dict[str, Any]) -> None:
    with load(case, **options) as model:
        requests = golden.requests(case)
        whole = [model.logits(prompt(request)).memoryview().tobytes() for request in requests]
        tokens = [greedy(model, prompt(request)) for request in requests]
        together = model.infer_batch(
            [prompt(request) for request in requests], temperature=0.0, max_new_tokens=NEW_TOKENS, ignore_eos=True
        )
        assert [answer.token_ids for answer in together] == tokens
    for chunk in (1, 7):
        with load(case, **options, prefill_chunk=chunk, max_batch_sequences=3) as model:
            for request, bits in zip(requests, whole, strict=True):
                assert model.logits(prompt(request)).memoryview().tobytes() == bits, (chunk, request.name)


def test_answers_that_give_way_and_start_again(case: str) -> None:
    requests = [request for request in golden.requests(case) if request.pictures]
    longest = max(len(request.ids) for request in requests) + NEW_TOKENS
    with load(case, cache_tokens=2 * longest, max_batch_sequences=4) as model:
        handles = [
            model.submit(prompt(request), temperature=0.0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
            for request in requests * 2
        ]
        found = [handle.result().token_ids for handle in handles]
    if golden.answers(case)["dtype"] == "float32":
        assert found == [request.greedy for request in requests * 2]
    assert found[: len(requests)] == found[len(requests) :]


def test_a_second_question_does_not_encode_the_picture_again(model: Any, case: str) -> None:
    request = next(request for request in golden.requests(case) if request.pictures)
    first = greedy(model, prompt(request))
    encoded = model.stats().encoded_media
    assert greedy(model, prompt(request)) == first
    assert model.stats().encoded_media == encoded
    with load(case, media_cache=0, prefix_cache=False) as forgetful:
        for _ in range(2):
            assert greedy(forgetful, prompt(request)) == first
        assert forgetful.stats().encoded_media == 2 * len(
            {p.key for p in forgetful.loaded.prompts.encode(prompt(request)).media}
        )


def test_pictures_that_the_cache_has_are_not_encoded(case: str) -> None:
    """Nothing is kept of what the tower gave; where the cache loses the blocks, the same is encoded again."""
    request = max(golden.requests(case), key=lambda request: len(request.pictures) + len(request.videos))
    media = len(request.pictures) + len(request.videos)
    behind = [[5] * 40 + [6 + n] * 20 for n in range(2)]
    asked = [prompt(replace(request, prompt=[*request.prompt, *tail])) for tail in behind]
    with load(case, media_cache=0, prefix_cache=False) as cold:
        expected = [greedy(cold, one) for one in asked]
        distinct = cold.stats().encoded_media // 2
    blocks = -(-(len(request.ids) + 60 + NEW_TOKENS) // 32) + 3
    with load(case, media_cache=0, cache_tokens=32 * blocks) as model:
        for one, tokens in zip([*asked, *asked], [*expected, *expected], strict=True):
            result = model.generate(one, temperature=0.0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
            assert result.token_ids == tokens and result.usage.image_tokens
        assert model.stats().encoded_media == distinct <= media
        model.generate([3] * (32 * blocks - 8), max_new_tokens=1)  # takes each block
        assert greedy(model, asked[0]) == expected[0]
        assert model.stats().encoded_media == 2 * distinct


def test_marks_are_never_sampled(model: Any, case: str) -> None:
    request = next(request for request in golden.requests(case) if request.pictures)
    marks = set(model.loaded.config.marks)
    bias = dict.fromkeys(marks, 100.0)
    for seed in range(3):
        answer = model.generate(prompt(request), temperature=2.0, seed=seed, logit_bias=bias, max_new_tokens=24)
        assert not marks & set(answer.token_ids)


def test_marks_and_pictures_must_match(model: Any, case: str) -> None:
    request = next(request for request in golden.requests(case) if request.pictures)
    for given in (request.prompt, {"text": request.prompt, "images": [*request.pictures, request.pictures[0]]}):
        with pytest.raises(pio.ConfigError, match="marks of images and brings"):
            model.generate(given, max_new_tokens=1)


def test_an_update_needs_no_folder(tmp_path: Path, case: str) -> None:
    folder = shutil.copytree(golden.FOLDER / case, tmp_path / "model")
    request = next(request for request in golden.requests(case) if request.pictures)
    with pio.load(folder, mmap=False) as model:
        before = greedy(model, prompt(request))
        shutil.rmtree(folder)
        model.update(max_batch_sequences=2)
        assert greedy(model, prompt(request)) == before


def test_a_quantized_folder_sees(tmp_path: Path, case: str) -> None:
    request = next(request for request in golden.requests(case) if request.pictures)
    target = pio.quantize(golden.FOLDER / case, tmp_path / "small", format="int8", progress=False)
    with pio.load(target) as stored, load(case, quantize="int8") as made:
        found, expected = (model.logits(prompt(request)).memoryview().tobytes() for model in (stored, made))
        assert found == expected
        assert stored.metadata.formats["tower"] == "int8"


def test_prompts_that_are_no_token_ids_are_told_as_ever(model: Any) -> None:
    for bad in ([1.5], ["a"], [None], [[1]], [2**40]):
        with pytest.raises(pio.ConfigError, match="token ids"):
            model.generate(bad, max_new_tokens=1)


def test_pictures_are_not_read_beyond_the_context(model: Any, case: str, tmp_path: Path) -> None:
    request = next(request for request in golden.requests(case) if request.pictures)
    mark = model.loaded.config.image_token_id
    missing = [tmp_path / f"{i}.png" for i in range(3)]
    pictures = [*request.pictures * 3000, *missing]
    with pytest.raises(pio.CapacityError, match=r"tokens of pictures.*max_pixels.*context_length"):
        model.generate({"text": [mark] * len(pictures), "images": pictures}, max_new_tokens=1)
