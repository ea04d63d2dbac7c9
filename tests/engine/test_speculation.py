"""Answers with drafts are those without, whatever is proposed; and nothing is left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Collection
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from drafters import EveryDraft, NoDraft, RandomDrafter, speculation
from hypothesis import given
from hypothesis import strategies as st
from toy_manager import PROMPTS
from toy_model import (
    EOS,
    STEP,
    VOCAB,
    PagedToyCache,
    ToyCache,
    ToyDetokenizer,
    ToyManager,
    ToyModel,
    WaitingToyCache,
    toy_greedy,
    toy_logits,
    toy_text,
)

from pio.engine.drafts.speculation import Speculation
from pio.engine.drafts.suffix_drafter import SuffixDrafter
from pio.engine.generation import Generation, Timings, TokenEvent
from pio.engine.handle import Handle
from pio.engine.sampling_params import SamplingParams
from pio.engine.sequence import Sequence
from pio.errors import NumericalError, PioError

ROOM = 1 << 30  # bytes of indexes, more than any test needs

NO_TIME = Timings(0, 0, 0, 0, 0)
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "drawn": {"temperature": 1.0, "seed": 5},
    "drawn of few": {"temperature": 2.0, "seed": 6, "top_k": 5, "top_p": 0.9, "min_p": 0.01},
    "three answers": {"temperature": 1.0, "seed": 7, "n": 3},
    "penalties": {"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.4},
    "bias": {"temperature": 0.7, "seed": 8, "logit_bias": {3: 2.0, 4: -5.0}},
    "bans": {"temperature": 0, "no_repeat_ngram_size": 2, "bad_words_ids": [[1], [2, 3]], "suppress_tokens": [7]},
    "no early end": {"temperature": 1.0, "seed": 9, "min_new_tokens": 12, "begin_suppress_tokens": [5]},
    "logprobs": {"temperature": 0.5, "seed": 10, "logprobs": 3},
    "stop text": {"temperature": 1.0, "seed": 11, "stop": ["X", "ba", "ZZ"]},
    "stop text, kept": {"temperature": 1.0, "seed": 12, "stop": ["Q", "ab"], "include_stop": True},
    "stop token": {"temperature": 1.0, "seed": 13, "stop_token_ids": [20, 21, 22]},
    "end token": {"temperature": 3.0, "seed": 14, "ignore_eos": False},
    "short": {"temperature": 0, "max_new_tokens": 2},
    "one": {"temperature": 0, "max_new_tokens": 1},
}


def make(
    drafts: Speculation | None = None,
    num_blocks: int = 80,
    block_size: int = 4,
    *,
    stored: type[ToyCache] = PagedToyCache,
    **limits: int,
) -> ToyManager:
    sizes = {"max_batch_tokens": 48, "max_batch_sequences": 8, "max_batch_outputs": 24, **limits}
    return ToyManager(
        ToyModel(**sizes),
        stored(num_blocks, block_size),
        eos_token_ids=[EOS],
        detokenizer=ToyDetokenizer,
        token_text=toy_text,
        speculation=drafts,
    )


def params(name: str) -> SamplingParams:
    return SamplingParams(**{"max_new_tokens": 30, "ignore_eos": True, "seed": 1, **REQUESTS[name]})


def told(result: Generation) -> list[Generation]:
    """All of a result but what it took, and what others had computed of its prompt."""
    return [
        replace(answer, timings=NO_TIME, samples=(), usage=replace(answer.usage, cached_tokens=0))
        for answer in (result, *result.samples)
    ]


Outcome: TypeAlias = "tuple[list[Generation], list[TokenEvent]]"


def outcome(handle: Handle) -> Outcome:
    """The results of a request, and the events of each answer in their order."""
    return told(handle.result(STEP)), sorted(handle.events(), key=lambda event: event.sample)


def run(manager: ToyManager, names: list[str]) -> list[Outcome]:
    """Ask for all of these together; return results and events."""
    handles = [manager.submit(PROMPTS[i % len(PROMPTS)], params(name)) for i, name in enumerate(names)]
    found = [outcome(handle) for handle in handles]
    stats = manager.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.free_blocks == stats.blocks
    return found


NAMES = list(REQUESTS)
ALONE: dict[str, Outcome] = {}
for index, name in enumerate(NAMES):
    with_nobody = make()
    ALONE[name] = outcome(with_nobody.submit(PROMPTS[index % len(PROMPTS)], params(name)))
    with_nobody.close()


def known(sequence: Sequence) -> list[int]:
    """The true answer of a sequence: the one whose tokens it has so far."""
    prompt, so_far = (
        sequence.tokens[: sequence.prompt_length].tolist(),
        sequence.tokens[sequence.prompt_length :].tolist(),
    )
    for i, name in enumerate(NAMES):
        for result in ALONE[name][0] if PROMPTS[i % len(PROMPTS)] == prompt else ():
            if result.token_ids[: len(so_far)] == so_far:
                return result.token_ids
    return []


@given(st.integers(0, 1 << 32), st.integers(1, 20), st.sampled_from([PagedToyCache, WaitingToyCache]))
def test_answers_are_the_same_whatever_is_drafted(seed: int, most: int, stored: type[ToyCache]) -> None:
    drafter = RandomDrafter(seed, VOCAB, known)
    manager = make(speculation(drafter, most), stored=stored)
    for name, found in zip(NAMES, run(manager, NAMES), strict=True):
        assert found == ALONE[name], name
    assert not drafter.held
    manager.close()


@given(st.integers(0, 1 << 32), st.integers(7, 14), st.sampled_from([PagedToyCache, WaitingToyCache]))
def test_answers_are_the_same_where_they_give_way_to_each_other(
    seed: int, num_blocks: int, stored: type[ToyCache]
) -> None:
    """Blocks are so few that two answers hardly run side by side, and each prompt is computed again and again."""
    names = ["greedy", "drawn", "logprobs", "penalties"]
    drafter = RandomDrafter(seed, VOCAB, known)
    manager = make(speculation(drafter), num_blocks, 8, stored=stored)
    prompts = [PROMPTS[NAMES.index(name) % len(PROMPTS)] for name in names]
    handles = [manager.submit(prompt, params(name)) for prompt, name in zip(prompts, names, strict=True)]
    for name, handle in zip(names, handles, strict=True):
        assert outcome(handle) == ALONE[name], name
    stats = manager.stats()
    assert stats.free_blocks == stats.blocks
    manager.close()


def test_drafts_make_nobody_give_way_and_hold_no_block_longer_than_a_step() -> None:
    """The same steps of prompts as without drafts: who gives way reads its prompt again."""
    read: list[int] = []
    for drafts in (None, speculation(RandomDrafter(3, VOCAB, lambda _: ()))):  # none of it comes
        manager = make(drafts, 12, 4, max_batch_sequences=3)
        model = manager_model(manager)
        model.slow = True
        handles = [manager.submit([1, 2, 3], params("greedy"))]
        model.wait_for_step()  # so that both times the others come in the first one's step
        handles += [manager.submit(prompt, params("greedy")) for prompt in ([4], [9, 9, 8, 1, 0])]
        model.slow = False
        model.step()
        for handle in handles:
            handle.result(STEP)
        read.append(manager.stats().prompt_tokens)
        assert (manager.stats().drafted_tokens > 0) == (drafts is not None)
        manager.close()
    assert read[0] == read[1] > 9, "some have given way"


def test_what_is_counted() -> None:
    truth = toy_greedy([1, 2, 3], 30)
    drafter = RandomDrafter(1, VOCAB, lambda sequence: truth)
    drafter.always = True
    manager = make(speculation(drafter, 4))
    result = manager.submit([1, 2, 3], params("greedy")).result(STEP)
    assert result.token_ids == truth
    timings, stats = result.timings, manager.stats()
    assert timings.speculation == "on"
    # the first token is the prompt's; then steps of five, as long as four tokens and one more are wanted
    assert (timings.checks, timings.drafted, timings.accepted) == (6, 23, 23)
    assert (stats.draft_checks, stats.drafted_tokens, stats.accepted_tokens) == (6, 23, 23)
    assert (stats.steps, stats.completion_tokens, stats.prompt_tokens) == (7, 30, 3)
    wrong = RandomDrafter(1, VOCAB, lambda sequence: [(token + 1) % VOCAB for token in truth])
    wrong.always = True
    manager = make(speculation(wrong, 4))
    timings = manager.submit([1, 2, 3], params("greedy")).result(STEP).timings
    assert (timings.accepted, timings.checks) == (0, 28)  # not for the last token, behind which none is wanted
    assert timings.drafted == 4 * 25 + 3 + 2 + 1
    manager.close()


def test_why_nothing_was_drafted() -> None:
    def why(drafts: Speculation | None, name: str = "greedy") -> str:
        manager = make(drafts)
        found = manager.submit([1, 2, 3], params(name)).result(STEP).timings
        assert (found.drafted, found.accepted, found.checks) == (0, 0, 0)
        manager.close()
        return found.speculation

    assert why(None) == "off"
    assert why(Speculation(SuffixDrafter(0, ROOM), NoDraft(), 8)) == "no_match"
    assert why(speculation(RandomDrafter(1, VOCAB)), "one") == "no_match"
    assert why(Speculation(RandomDrafter(1, VOCAB), NoDraft(), 8)) == "not_worth_it"


def test_the_text_of_the_prompt_is_what_a_model_that_copies_goes_on_with() -> None:
    """Whatever stands behind the last three tokens for the first time in the prompt comes next."""
    prompt = [(7 * i * i + 3 * i) % 37 for i in range(40)]
    found: list[list[int]] = []
    for drafts in (None, Speculation(SuffixDrafter(0, ROOM), EveryDraft(), 8)):
        manager = make(drafts, max_positions=128, max_batch_tokens=64)
        manager_model(manager).logits = copying(prompt)
        result = manager.submit(prompt + prompt[:3], params("greedy")).result(STEP)
        assert result.token_ids == prompt[3:33]
        found.append([manager.stats().steps, result.timings.accepted])
        manager.close()
    assert found[0] == [30, 0]
    assert found[1][0] < 12 and found[1][1] >= 20


def test_the_next_turn_finds_what_an_answer_with_drafts_has_left() -> None:
    truth = toy_greedy([1, 2, 3], 30)
    cached: list[int] = []
    for drafts in (None, speculation(RandomDrafter(2, VOCAB, lambda sequence: truth))):
        manager = make(drafts)
        first = manager.submit([1, 2, 3], params("greedy")).result(STEP)
        again = [1, 2, 3, *first.token_ids, 5, 6]
        second = manager.submit(again, params("short")).result(STEP)
        assert second.token_ids == toy_greedy(again, 2)
        cached.append(second.usage.cached_tokens)
        manager.close()
    assert cached == [32, 32]


def test_an_answer_that_is_cancelled_between_two_tokens_of_a_draft() -> None:
    """Nothing is left of it, and the others go on."""
    truth = toy_greedy([1, 2, 3], 30)
    drafter = RandomDrafter(2, VOCAB, lambda sequence: truth)
    manager = make(speculation(drafter))
    manager_model(manager).slow = True
    gone, stays = (manager.submit([1, 2, 3], params("greedy")) for _ in range(2))
    manager_model(manager).step(2)
    for event in gone.events():
        if event.position == 1:
            break
    gone.cancel()
    manager_model(manager).step(1000)
    assert stays.result(STEP).token_ids == truth
    stats = manager.stats()
    assert (stats.free_blocks, stats.running, stats.dropped) == (stats.blocks, 0, 1)
    assert not drafter.held
    manager.close()


def test_an_answer_that_fails_at_a_drafted_token_fails_alone() -> None:
    truth = toy_greedy([1, 2, 3], 30)
    drafter = RandomDrafter(2, VOCAB, lambda sequence: truth)
    drafter.always = True
    manager = make(speculation(drafter))
    manager_model(manager).not_finite = truth[5]
    broken, other = manager.submit([1, 2, 3], params("greedy")), manager.submit([4], params("stop token"))
    with pytest.raises(NumericalError):
        broken.result(STEP)
    assert outcome(other) == outcome(make().submit([4], params("stop token")))
    assert manager.stats().free_blocks == manager.stats().blocks and not drafter.held
    manager.close()


def test_a_step_that_fails_leaves_no_draft_behind() -> None:
    truth = toy_greedy([1, 2, 3], 30)
    drafter = RandomDrafter(2, VOCAB, lambda sequence: truth)
    drafter.always = True
    manager = make(drafts := speculation(drafter))
    manager_model(manager).poison = truth[7]
    with pytest.raises(PioError, match="poison"):
        manager.submit([1, 2, 3], params("greedy")).result(STEP)
    assert not drafts._drafted and not drafter.held
    assert manager.submit([4], params("short")).result(STEP).token_ids == toy_greedy([4], 2)
    assert manager.stats().free_blocks == manager.stats().blocks
    manager.close()


def test_a_deadline_ends_an_answer_with_the_tokens_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = toy_greedy([1, 2, 3], 30)
    manager = make(speculation(RandomDrafter(2, VOCAB, lambda sequence: truth)))
    manager_model(manager).slow = True
    handle = manager.submit([1, 2, 3], params("greedy").model_copy(update={"deadline": 1000.0}))
    for _ in range(3):
        manager_model(manager).wait_for_step()
        manager_model(manager).step(1)
    manager_model(manager).wait_for_step()  # the fourth: three have given tokens
    now = time.perf_counter()
    monkeypatch.setattr("pio.engine.deadlines.perf_counter", lambda: now + 2000.0)
    manager_model(manager).step(1000)
    result = handle.result(STEP)
    assert result.finish_reason == "deadline"
    assert result.token_ids == truth[: len(result.token_ids)] and len(result.token_ids) >= 3
    assert manager.stats().free_blocks == manager.stats().blocks
    manager.close()


def copying(prompt: list[int]) -> Callable[[Collection[int]], list[float]]:
    """Return logits that want what stands behind the last three tokens for the first time in a prompt."""

    def logits(tokens: Collection[int]) -> list[float]:
        found = toy_logits(tokens)
        last = list(tokens[-3:])
        for i in range(3, len(prompt)):
            if prompt[i - 3 : i] == last:
                found[prompt[i]] += 100.0
                break
        return found

    return logits


def manager_model(manager: ToyManager) -> ToyModel:
    worker: Any = manager._worker
    return worker._steps._runner._model


def test_where_no_block_is_free_a_draft_ends_with_the_last_block() -> None:
    truth = toy_greedy([1, 2, 3], 30)
    drafter = RandomDrafter(2, VOCAB, lambda sequence: truth)
    drafter.always = True
    manager = make(speculation(drafter, 15), 9, 4)  # 33 tokens are nine blocks
    result = manager.submit([1, 2, 3], params("greedy")).result(STEP)
    assert result.token_ids == truth
    assert result.timings.accepted == result.timings.drafted > 15
    assert manager.stats().free_blocks == manager.stats().blocks == 9
    manager.close()


@pytest.mark.parametrize("method", ["propose", "end"])
def test_a_drafter_that_fails_ends_no_answer(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing more is drafted then, and whoever runs or waits gets his answer."""

    def failing(*_: Any) -> Any:
        raise MemoryError

    drafts = Speculation(SuffixDrafter(1 << 16, ROOM), EveryDraft(), 8)
    manager = ToyManager(ToyModel(), PagedToyCache(40, 4), speculation=drafts)
    monkeypatch.setattr(SuffixDrafter, method, failing)
    greedy = SamplingParams(temperature=0, max_new_tokens=9, ignore_eos=True)
    for _ in range(2):
        handles = [manager.submit(prompt, greedy) for prompt in PROMPTS]
        assert [handle.result(60).token_ids for handle in handles] == [toy_greedy(prompt, 9) for prompt in PROMPTS]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["nothing more is drafted, for it failed: MemoryError: "]
    manager.close()
