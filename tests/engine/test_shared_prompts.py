"""Several answers to one prompt: it is computed once, and each of them is what it is alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import STEP, VOCAB, ToyCache, ToyManager, ToyModel, toy_greedy

from pio.engine.handle import Handle
from pio.engine.sampling_params import SamplingParams
from pio.errors import CancelledError, PioError

PROMPT = list(range(5, 27))


def params(n: int, tokens: int = 9, seed: int = 3) -> SamplingParams:
    return SamplingParams(n=n, seed=seed, max_new_tokens=tokens, ignore_eos=True)


def samples(handle: Handle) -> list[tuple[int, list[int]]]:
    """Seeds and tokens."""
    result = handle.result(STEP)
    return [(sample.seed, sample.token_ids) for sample in result.samples or (result,)]


def alone(prompt: list[int], found: list[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
    """The same answers from a model that does nothing else."""
    manager = ToyManager(ToyModel(), ToyCache(40, 4))
    asked = [params(1, len(tokens), seed) for seed, tokens in found]
    answers = [(p.seed or 0, manager.submit(prompt, p).result(STEP).token_ids) for p in asked]
    manager.close()
    return answers


@pytest.mark.parametrize("length", [20, 21, 22, 23])
def test_a_prompt_is_computed_once(length: int) -> None:
    model, cache = ToyModel(), ToyCache(40, 4)
    manager = ToyManager(model, cache)
    found = samples(manager.submit(PROMPT[:length], params(4)))
    assert found == alone(PROMPT[:length], found)
    assert len({tuple(tokens) for _, tokens in found}) == 4
    steps = [[tokens for tokens, _ in step] for step in model.steps]
    assert [step for step in steps if len(step) < 4] == [[PROMPT[:16]], [PROMPT[16:length]]]
    assert all(len(tokens) == 1 for step in steps[2:] for tokens in step)
    assert len(cache.copied) == (3 if length % 4 else 0), "one begun block is copied for all but its last owner"
    manager.close()


def test_answers_of_one_token() -> None:
    """The first is finished in the step in which the others begin."""
    manager = ToyManager(ToyModel(), ToyCache(40, 4))
    found = samples(manager.submit(PROMPT, params(9, tokens=1)))
    assert found == alone(PROMPT, found)
    manager.close()


@given(
    st.lists(st.tuples(st.integers(1, 22), st.integers(1, 6), st.integers(1, 12)), min_size=1, max_size=5),
    st.integers(9, 30),
    st.sampled_from([{}, {"prefill_chunk": 1}, {"prefill_chunk": 5, "max_batch_sequences": 2}]),
)
def test_what_shares_a_prompt_and_gives_way_changes_nothing(
    requests: list[tuple[int, int, int]], num_blocks: int, options: dict[str, int]
) -> None:
    manager = ToyManager(ToyModel(), ToyCache(num_blocks, 4), **options)
    handles = [manager.submit(PROMPT[:length], params(n, tokens, i)) for i, (length, n, tokens) in enumerate(requests)]
    for (length, n, tokens), handle in zip(requests, handles, strict=True):
        found = samples(handle)
        assert [len(token_ids) for _, token_ids in found] == [tokens] * n
        assert found == alone(PROMPT[:length], found)
    manager.close()


@pytest.mark.parametrize("steps", range(1, 6))
def test_a_request_that_is_cancelled_gives_all_of_it_back(steps: int) -> None:
    """In its prompt, as its answers begin, and while they run."""
    model = ToyModel()
    model.slow = True
    manager = ToyManager(model, ToyCache(10, 4))
    handle = manager.submit(PROMPT, params(3))
    for _ in range(steps - 1):
        model.wait_for_step()
        model.step()
    model.wait_for_step()
    handle.cancel()
    with pytest.raises(CancelledError):
        handle.result(STEP)
    model.step(1000)
    whole = list(range(39))  # needs each block
    greedy = SamplingParams(temperature=0, max_new_tokens=1, ignore_eos=True)
    assert manager.submit(whole, greedy).result(STEP).token_ids == toy_greedy(whole, 1)
    manager.close()


@pytest.mark.parametrize("n", [1, 3])
def test_a_cancel_that_is_interrupted_holds_nobody_up(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of a signal handler, just before the worker would have been told."""
    model = ToyModel()
    model.slow = True
    manager = ToyManager(model, ToyCache(10, 4))
    handle = manager.submit(PROMPT, params(n))
    model.wait_for_step()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pio.engine.waiters.Waiters.wake", interrupted)
        with pytest.raises(KeyboardInterrupt):
            handle.cancel()
    model.step(1000)
    whole = list(range(39))  # needs each block
    greedy = SamplingParams(temperature=0, max_new_tokens=1, ignore_eos=True)
    assert manager.submit(whole, greedy).result(STEP).token_ids == toy_greedy(whole, 1)
    manager.close()


def test_an_error_in_one_answer_ends_its_request_and_no_other() -> None:
    model = ToyModel()
    model.poison = next(token for token in range(VOCAB) if token not in PROMPT)
    manager = ToyManager(model, ToyCache(20, 4))
    biased = params(3).model_copy(update={"logit_bias": {model.poison: 90.0}})  # soon drawn
    bad = manager.submit(PROMPT, biased)
    with pytest.raises(PioError, match="poison"):
        bad.result(STEP)
    model.poison = None
    found = samples(manager.submit(PROMPT, params(3)))
    assert found == alone(PROMPT, found)
    manager.close()


@pytest.mark.parametrize("copies", [0, 1])
@pytest.mark.parametrize("what", ["copy_states", "copy_block"])
def test_an_error_while_answers_begin_leaves_nothing_behind(what: str, copies: int) -> None:
    """At the first of them, or where one has begun already."""

    class Full(ToyCache):
        left = copies

        def copy_states(self, source: int, target: int) -> None:
            self.fail("copy_states")
            super().copy_states(source, target)

        def copy_block(self, source: int, target: int) -> None:
            self.fail("copy_block")
            super().copy_block(source, target)

        def fail(self, where: str) -> None:
            self.left -= where == what
            if self.left == -1:
                self.left -= 1
                raise MemoryError("full")

    manager = ToyManager(ToyModel(), Full(10, 4))
    with pytest.raises(PioError, match="memory"):
        manager.submit(PROMPT, params(3)).result(STEP)
    whole = list(range(39))  # needs each block
    greedy = SamplingParams(temperature=0, max_new_tokens=1, ignore_eos=True)
    assert manager.submit(whole, greedy).result(STEP).token_ids == toy_greedy(whole, 1)
    found = samples(manager.submit(PROMPT, params(4)))
    assert found == alone(PROMPT, found)
    manager.close()
