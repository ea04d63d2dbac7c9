"""Requests that begin alike, to a model whose layers keep states: as those to others, from where states were kept."""

from __future__ import annotations

from typing import Any

import pytest
from alike import CHUNKS, PROMPT, REQUESTS, check_answers, computed, params, submitted
from drafters import RandomDrafter, speculation
from hypothesis import given
from hypothesis import strategies as st
from toy_manager import ids
from toy_model import EOS, STEP, VOCAB, ToyCache, ToyManager, ToyModel, WaitingToyCache, toy_greedy, toy_logits

from pio.engine.sampling_params import SamplingParams
from pio.errors import CancelledError, PioError


def make(model: ToyModel | None = None, num_blocks: int = 60, kept: int = 12, **options: Any) -> ToyManager:
    model = model or ToyModel()
    cache = ToyCache(num_blocks, 4, options.get("max_batch_sequences", model.max_batch_sequences) + kept)
    return ToyManager(model, cache, eos_token_ids=[EOS], **options)


def cached(manager: ToyManager, prompt: list[int], count: int = 3, **fields: Any) -> int:
    """How much of a prompt is found; its answer must be that of a cold run."""
    found = manager.submit(prompt, params(count, **fields)).result(STEP)
    assert found.token_ids == toy_greedy(prompt, count)
    return found.usage.cached_tokens


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_the_second_time_only_the_end_is_computed(chunk: int) -> None:
    model = ToyModel()
    manager = make(model, prefill_chunk=chunk)
    for found in (0, 20, 20):
        before = computed(model)
        assert cached(manager, PROMPT, 4) == found
        assert computed(model) - before == 22 - found + 3
    assert (manager.stats().cached_tokens, manager.stats().prompt_tokens) == (40, 3 * 22 - 40)
    manager.close()


def test_no_step_is_added_where_states_are_kept() -> None:
    """A prompt of 22 tokens takes two steps of 16, as it does without."""
    for kept in (0, 12):
        model = ToyModel()
        manager = make(model, kept=kept)
        assert cached(manager, PROMPT, 1) == 0
        assert len(model.steps) == 2
        assert [sum(len(tokens) for tokens, _ in step) for step in model.steps] == [16, 6]
        manager.close()


@pytest.mark.parametrize("kept", [1, 2, 3, 12])
def test_a_conversation_computes_what_is_new(kept: int) -> None:
    model = ToyModel(max_positions=400)
    manager, said = make(model, num_blocks=100, kept=kept), list(PROMPT)
    for turn in range(20):
        before = computed(model)
        found = manager.submit(said, params(7)).result(STEP)
        assert found.token_ids == toy_greedy(said, 7)
        new = computed(model) - before - 7 - 5
        if turn:
            answered = 0 if kept > 1 else 7  # one is not enough for a prompt and its answer
            assert new <= answered + 2 * 4, "more than the new tokens, the answer and two blocks"
            assert found.usage.cached_tokens >= len(said) - 5 - answered - 2 * 4
        assert manager.stats().kept_states <= kept
        said += [*found.token_ids, *range(turn % 9, turn % 9 + 5)]
    manager.close()


def test_the_same_beginning_with_other_ends() -> None:
    """The second one keeps states where it parts from the first, and the third goes on from there."""
    manager, beginning = make(ToyModel(max_positions=200), num_blocks=200), [i % 37 for i in range(90)]
    assert cached(manager, beginning + [1] * 60) == 0
    second = cached(manager, beginning + [2] * 60)
    assert second >= 88 - 60, "of the ladder"
    assert cached(manager, beginning + [3] * 60) == 88
    assert cached(manager, [2, *beginning]) == 0
    manager.close()


@pytest.mark.parametrize("first", [8, 60, 121])
@pytest.mark.parametrize("second", [9, 70])
def test_messages_are_found_at_the_second_sight(first: int, second: int) -> None:
    """What other conversations begin with ends where a message does."""
    system = [*[i % 37 for i in range(first)], EOS]
    for kept in (4, 12):
        manager = make(ToyModel(max_positions=300), num_blocks=200, kept=kept)
        assert cached(manager, [*system, *[1] * second, EOS, 9, 9]) == 0
        assert cached(manager, [*system, *[2] * 33, EOS, 9, 9]) == len(system) // 4 * 4
        manager.close()


def test_salts_keep_callers_apart() -> None:
    manager = make(kept=20)
    for salt, found in ((None, 0), ("a", 0), ("b", 0), ("a", 20), (None, 20), ("b", 20), ("ab", 0)):
        assert cached(manager, PROMPT, cache_salt=salt) == found
    manager.close()


def test_logits_of_a_prompt_are_all_computed_and_found_by_others() -> None:
    manager = make()
    for _ in range(2):
        for i, row in enumerate(manager.logits(PROMPT).tolist()):
            assert row == pytest.approx(toy_logits(PROMPT[: i + 1]), abs=1e-6)
    assert manager.stats().cached_tokens == 0
    assert cached(manager, PROMPT) == 20
    manager.close()


def test_several_answers_count_what_their_prompt_found() -> None:
    manager = make()
    ids(manager.submit(PROMPT, params(1)))
    sampled = SamplingParams(n=3, seed=1, max_new_tokens=9, ignore_eos=True)
    found = manager.submit(PROMPT, sampled).result(STEP)
    assert [s.usage.cached_tokens for s in found.samples] == [20] * 3
    for sample in found.samples:  # each answer is found to its end, as it is said again
        assert cached(manager, [*PROMPT, *sample.token_ids, 1]) == 28
    manager.close()


def test_prompts_that_come_together_are_computed_once() -> None:
    """The others wait, and the first one keeps states where they part from it."""
    model = ToyModel()
    model.slow = True
    manager = make(model)
    prompts = [PROMPT[:14] + [tail] * 8 for tail in (1, 2, 3)]
    handles = [manager.submit(prompt, params(2)) for prompt in prompts]
    model.wait_for_step()
    model.slow = False
    model.step()
    for handle, prompt, found in zip(handles, prompts, (0, 12, 12), strict=True):
        result = handle.result(STEP)
        assert (result.token_ids, result.usage.cached_tokens) == (toy_greedy(prompt, 2), found)
    assert computed(model) == 22 + 2 * 10 + 3
    manager.close()


def test_one_that_gave_way_finds_what_it_had() -> None:
    model, prompts = ToyModel(), (PROMPT[:15], [1] * 15)
    model.slow = True
    manager = make(model, num_blocks=10)
    handles = [manager.submit(prompt, params(14)) for prompt in prompts]
    model.wait_for_step()
    model.slow = False
    model.step()
    for handle, prompt in zip(handles, prompts, strict=True):
        found = handle.result(STEP)
        assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(prompt, 14), 0)
    again = computed(model) - 2 * (15 + 13)
    assert 0 < again < 15, f"{again} tokens were computed twice"
    manager.close()


def test_what_is_cancelled_or_fails_leaves_what_was_whole() -> None:
    model = ToyModel()
    model.slow = True
    manager = make(model)
    handle = manager.submit(PROMPT, params(9))
    model.wait_for_step()
    model.step()
    model.wait_for_step()  # the second chunk
    handle.cancel()
    model.slow = False
    model.step()
    with pytest.raises(CancelledError):
        handle.result(STEP)
    assert cached(manager, PROMPT) >= 12
    model.poison = 39
    with pytest.raises(PioError, match="poison"):
        manager.submit([*PROMPT, 1, 2, 39], params(3)).result(STEP)
    model.poison = None
    assert cached(manager, [*PROMPT, 1, 2, 39]) == 20, "a step that failed has left none"
    manager.close()


def drafting(drafter: RandomDrafter, most: int, kept: int) -> ToyManager:
    model = ToyModel(max_positions=200, max_batch_tokens=48, max_batch_outputs=24)
    return ToyManager(
        model, WaitingToyCache(120, 4, 4 + kept), eos_token_ids=[EOS], speculation=speculation(drafter, most)
    )


@pytest.mark.parametrize("most", [3, 9, 15])
def test_drafted_answers_are_found_as_they_come_back(most: int) -> None:
    """A draft that would pass a block ends with it where the last states are two blocks behind."""
    drafter = RandomDrafter(1, VOCAB, lambda s: toy_greedy(s.tokens[: s.prompt_length].tolist(), 61))
    drafter.always = True
    manager = drafting(drafter, most, 12)
    said = list(PROMPT)
    for _ in range(2):
        found = manager.submit(said, params(60)).result(STEP)
        assert found.token_ids == toy_greedy(said, 60) and found.timings.accepted > 30
        said += [*found.token_ids, 1, 2]
    found = manager.submit(said, params(1)).result(STEP)
    assert found.usage.cached_tokens >= len(said) - 2 - 2 * 4 - most - 4 - 1
    manager.close()


@given(st.integers(0, 99), st.integers(0, 7), st.lists(st.tuples(st.integers(1, 22), st.integers(0, 2)), max_size=6))
def test_drafts_and_kept_states_change_nothing(seed: int, kept: int, requests: list[tuple[int, int]]) -> None:
    drafter = RandomDrafter(seed, VOCAB, lambda s: toy_greedy(s.tokens[: s.prompt_length].tolist(), 20))
    manager = drafting(drafter, 6, kept)
    handles: list[Any] = []
    for length, tail in (*requests, *requests):
        prompt = PROMPT[:length] + [tail] * (tail + 1)
        handles.append((prompt, manager.submit(prompt, params(14))))
    for prompt, handle in handles:
        assert ids(handle) == toy_greedy(prompt, 14)
    assert manager.stats().kept_states <= kept
    manager.close()


@given(REQUESTS, st.integers(10, 30), st.integers(1, 6), CHUNKS)
def test_whatever_is_found_evicted_or_gives_way_the_answers_are_the_same(
    requests: list[tuple[int, int, int, int, str | None]], num_blocks: int, kept: int, options: dict[str, int]
) -> None:
    """Prompts that begin alike and end otherwise, one answer or several, in a cache that is mostly too small."""
    manager, alone = make(num_blocks=num_blocks, kept=kept, **options), make(kept=0)
    check_answers(submitted(manager, requests), alone)
    assert manager.stats().kept_states <= kept
    manager.close()
    alone.close()
