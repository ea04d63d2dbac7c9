"""Requests that begin alike: what was computed once is not computed again, and only usage tells."""

from __future__ import annotations

from typing import Any

import pytest
from alike import CHUNKS, PROMPT, REQUESTS, check_answers, check_pool, computed, params, submitted
from hypothesis import given
from hypothesis import strategies as st
from toy_manager import ids
from toy_model import STEP, PagedToyCache, ToyCache, ToyManager, ToyModel, toy_greedy, toy_logits

from pio.engine.sampling_params import SamplingParams
from pio.errors import CancelledError, ConfigError, PioError


def make(model: ToyModel | None = None, num_blocks: int = 40, **options: Any) -> ToyManager:
    return ToyManager(model or ToyModel(), PagedToyCache(num_blocks, 4), **options)


def test_the_second_time_only_the_end_is_computed() -> None:
    model = ToyModel()
    manager = make(model)
    for cached in (0, 20, 20):
        before = computed(model)
        found = manager.submit(PROMPT, params(4)).result(STEP)
        assert found.token_ids == toy_greedy(PROMPT, 4)
        assert (found.usage.prompt_tokens, found.usage.cached_tokens) == (22, cached)
        assert computed(model) - before == 22 - cached + 3
        assert found.timings.queue >= 0 and found.timings.prefill > 0, "it knows when it began"
    assert manager.stats().cached_tokens == 40
    ids(manager.submit([1], params(1)))  # it fills no block, and begins when the others are gone
    stats = manager.stats()
    assert (stats.cached_tokens, stats.prompt_tokens, stats.kept_blocks) == (40, 3 * 22 - 40 + 1, (22 + 3) // 4)
    manager.close()


@pytest.mark.parametrize("length", range(17, 25))
def test_the_last_token_of_a_prompt_is_always_computed(length: int) -> None:
    manager, prompt = make(), [7] * length
    ids(manager.submit(prompt, params(9)))
    found = manager.submit(prompt, params(9)).result(STEP)
    assert found.token_ids == toy_greedy(prompt, 9)
    assert found.usage.cached_tokens == (length - 1) // 4 * 4
    manager.close()


def test_a_conversation_computes_what_is_new() -> None:
    model = ToyModel(max_positions=400)
    manager, said = make(model, num_blocks=100), list(PROMPT)
    for turn in range(20):
        before = computed(model)
        found = manager.submit(said, params(7)).result(STEP)
        assert found.token_ids == toy_greedy(said, 7)
        assert found.usage.cached_tokens == (0 if turn == 0 else (len(said) - 5 - 1) // 4 * 4)
        if turn:
            assert computed(model) - before <= 5 + 7 + 4, "more than the new tokens, the answer and a block"
        said += [*found.token_ids, *range(turn % 9, turn % 9 + 5)]
    manager.close()


def test_prompts_that_part() -> None:
    manager = make()
    ids(manager.submit(PROMPT, params(2)))
    for prompt, cached in ((PROMPT[:10] + [1] * 12, 8), ([2, *PROMPT], 0), (PROMPT[:4] + [9], 4), (PROMPT[:4], 0)):
        found = manager.submit(prompt, params(3)).result(STEP)
        assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(prompt, 3), cached)
    manager.close()


def test_salts_keep_callers_apart() -> None:
    manager = make()
    for salt, cached in ((None, 0), ("a", 0), ("b", 0), ("a", 20), (None, 20), ("b", 20), ("ab", 0)):
        found = manager.submit(PROMPT, params(3, cache_salt=salt)).result(STEP)
        assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 3), cached)
    with pytest.raises(ConfigError, match="cache_salt='' cannot be used: expected a non-empty text"):
        SamplingParams(cache_salt="")
    manager.close()


@pytest.mark.parametrize("stored", [ToyCache, PagedToyCache])
def test_nothing_is_found_where_it_was_not_asked_for_or_layers_keep_states(stored: type[ToyCache]) -> None:
    manager = ToyManager(ToyModel(), stored(40, 4), prefix_cache=stored is ToyCache)
    for _ in range(2):
        found = manager.submit(PROMPT, params(3)).result(STEP)
        assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 3), 0)
    assert manager.stats().cached_tokens == 0
    manager.close()


def test_logits_of_a_prompt_are_all_computed_and_found_by_others() -> None:
    manager = make()
    for _ in range(2):
        rows = manager.logits(PROMPT).tolist()
        for i, row in enumerate(rows):
            assert row == pytest.approx(toy_logits(PROMPT[: i + 1]), abs=1e-6)
    assert manager.stats().cached_tokens == 0
    assert manager.submit(PROMPT, params(1)).result(STEP).usage.cached_tokens == 20
    manager.close()


def test_several_answers_count_what_their_prompt_found() -> None:
    manager = make()
    ids(manager.submit(PROMPT, params(1)))
    sampled = SamplingParams(n=3, seed=1, max_new_tokens=5, ignore_eos=True)
    found = manager.submit(PROMPT, sampled).result(STEP)
    assert [s.usage.cached_tokens for s in found.samples] == [20] * 3
    assert (found.usage.cached_tokens, manager.stats().cached_tokens) == (20, 20)
    check_pool(manager, 16)
    manager.close()


def test_answers_to_prompts_that_come_together_compute_their_beginning_once() -> None:
    model = ToyModel(max_batch_sequences=6)
    model.slow = True
    manager = make(model)
    sampled = SamplingParams(n=2, seed=1, max_new_tokens=3, ignore_eos=True)
    handles = [manager.submit([*PROMPT, token], sampled) for token in (1, 2, 3)]
    model.slow = False
    model.step(1)
    assert [handle.result(STEP).usage.cached_tokens for handle in handles] == [0, 20, 20]
    assert computed(model) == 23 + 3 + 3 + 2 * 6
    manager.close()


def test_one_that_gave_way_finds_what_it_had() -> None:
    """Ten blocks are too few for both to come to their end; the younger one begins again, and not from its start."""
    model, prompts = ToyModel(), (PROMPT[:15], [1] * 15)
    model.slow = True  # until both are there
    manager = make(model, num_blocks=10)
    handles = [manager.submit(prompt, params(14)) for prompt in prompts]
    model.slow = False
    model.step(1)
    for handle, prompt in zip(handles, prompts, strict=True):
        found = handle.result(STEP)
        assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(prompt, 14), 0)
    again = computed(model) - 2 * (15 + 13)
    assert 0 < again < 15, f"{again} tokens were computed twice"
    assert manager.stats().cached_tokens == 0, "what it has computed itself is no hit"
    check_pool(manager, 10)
    manager.close()


def test_a_cancelled_request_leaves_what_was_whole() -> None:
    model = ToyModel()
    model.slow = True
    manager = make(model, num_blocks=10)
    handle = manager.submit(PROMPT, params(9))
    model.wait_for_step()
    model.step()  # sixteen tokens
    model.wait_for_step()
    handle.cancel()
    with pytest.raises(CancelledError):
        handle.result(STEP)
    model.step(1000)
    found = manager.submit(PROMPT, params(3)).result(STEP)
    assert found.token_ids == toy_greedy(PROMPT, 3) and found.usage.cached_tokens in (16, 20)
    check_pool(manager, 10)
    manager.close()


def test_a_step_that_fails_leaves_nothing_wrong() -> None:
    model = ToyModel()
    model.poison = PROMPT[-1]
    manager = make(model, num_blocks=10)
    with pytest.raises(PioError, match="poison"):
        manager.submit(PROMPT, params(3)).result(STEP)
    model.poison = None
    found = manager.submit(PROMPT, params(3)).result(STEP)
    assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 3), 16)
    check_pool(manager, 10)
    manager.close()


def test_prompts_that_come_together_are_computed_once() -> None:
    """Three begin alike: the first computes it, and a stranger behind them does not wait."""
    model = ToyModel()
    model.slow = True
    manager = make(model)
    first = manager.submit([1], params(1))  # so that the others arrive together
    model.wait_for_step()
    prompts = [PROMPT, [*PROMPT[:13], 1, 2], PROMPT, [2, 2]]
    handles = [manager.submit(prompt, params(2)) for prompt in prompts]
    model.step(1000)
    ids(first)
    results = [handle.result(STEP) for handle in handles]
    assert [result.token_ids for result in results] == [toy_greedy(prompt, 2) for prompt in prompts]
    assert [result.usage.cached_tokens for result in results] == [0, 12, 20, 0]
    stranger, third = ([part in step for step in model.steps].index(True) for part in (([2, 2], 0), (PROMPT[20:], 20)))
    assert stranger < third
    assert computed(model) == 1 + (22 + 1) + (3 + 1) + (2 + 1) + (2 + 1)
    manager.close()


@given(REQUESTS, st.integers(10, 30), CHUNKS)
def test_whatever_is_found_evicted_or_gives_way_the_answers_are_the_same(
    requests: list[tuple[int, int, int, int, str | None]], num_blocks: int, options: dict[str, int]
) -> None:
    """Prompts that begin alike and end otherwise, one answer or several, in a cache that is mostly too small."""
    manager = make(num_blocks=num_blocks, **options)
    alone = make(num_blocks=40, prefix_cache=False)
    check_answers(submitted(manager, requests), alone)
    check_pool(manager, min(num_blocks, 16))
    manager.close()
    alone.close()
