"""Requests that begin alike, and what is asked of those who find their beginning."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from toy_manager import GREEDY, ids
from toy_model import STEP, ToyManager, ToyModel, toy_greedy

from pio.engine.sampling_params import SamplingParams

SIZE = 4  # tokens a block
PROMPT = list(range(5, 27))  # five blocks, and two tokens

# of a request: how much of PROMPT it begins with, which tail it has, how many answers of how many tokens, and its salt
REQUEST_FIELDS = (
    st.integers(0, 22),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(1, 12),
    st.sampled_from([None, "a"]),
)
REQUESTS = st.lists(st.tuples(*REQUEST_FIELDS), min_size=1, max_size=8)
CHUNKS = st.sampled_from([{}, {"prefill_chunk": 1}, {"prefill_chunk": 5, "max_batch_sequences": 2}])


def computed(model: ToyModel) -> int:
    """Tokens that went through a model."""
    return sum(len(tokens) for step in model.steps for tokens, _ in step)


def params(count: int, **fields: Any) -> SamplingParams:
    return GREEDY.model_copy(update={"max_new_tokens": count, **fields})


def check_pool(manager: ToyManager, num_blocks: int) -> None:
    """A request that needs every block finds them."""
    whole = [3] * (SIZE * num_blocks - 1)
    assert ids(manager.submit(whole, params(1))) == toy_greedy(whole, 1)


def submitted(manager: ToyManager, requests: list[tuple[Any, ...]]) -> list[tuple[list[int], int, Any]]:
    """Have requests answered; those whose last field, if it is a sixth one, says so are cancelled at once.

    Returns:
        Of each of the others its prompt, the tokens of an answer, and its handle.
    """
    handles = list[tuple[list[int], int, Any]]()
    for i, (length, tail, n, tokens, salt, *dropped) in enumerate(requests):
        prompt = PROMPT[:length] + [tail] * (tail + 1)
        fields = SamplingParams(n=n, seed=i, max_new_tokens=tokens, ignore_eos=True, cache_salt=salt)
        handle = manager.submit(prompt, fields)
        if any(dropped):
            handle.cancel()
        else:
            handles.append((prompt, tokens, handle))
    return handles


def check_answers(handles: list[tuple[list[int], int, Any]], alone: ToyManager) -> None:
    """Compare answers with those of a manager that finds nothing."""
    for prompt, tokens, handle in handles:
        result = handle.result(STEP)
        for sample in result.samples or (result,):
            drawn = SamplingParams(seed=sample.seed, max_new_tokens=tokens, ignore_eos=True)
            assert sample.token_ids == alone.submit(prompt, drawn).result(STEP).token_ids
            assert sample.usage.cached_tokens % SIZE == 0 and 0 <= sample.usage.cached_tokens < len(prompt)
