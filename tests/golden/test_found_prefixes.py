"""What real layers find is to the bit what they would have computed: keys and values, latents, or states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from golden_case import greedy

import pio
from pio.testing.compare import bits

HERE = Path(__file__).parent
CASES = [
    ("qwen3/tied_gqa2", "float32"),
    ("qwen3/tied_gqa2", "float16"),
    ("qwen3/head128_bf16", "int8"),
    ("qwen3/head128_bf16", "bfloat16"),
    ("qwen3/sliding_layer_types_bf16", "float16"),
    ("qwen3_moe/sparse_step2_tied_sharded_bf16", "int8"),
    ("glm4_moe_lite/as_published", "float32"),
    ("glm4_moe_lite/as_published", "int8"),
    ("qwen3_next/heads1x", "float32"),
    ("qwen3_next/heads3x_sharded_bf16", "int8"),
    ("qwen3_next/heads3x_sharded_bf16", "bfloat16"),
    ("qwen3_next/conv2_tied_yarn_f16", "float16"),
]
BLOCK = 32
EVERYTHING = 100  # log probabilities, which are float for float those of the logits


def load(case: str, **options: Any) -> Any:
    return pio.load(HERE / case, context_length=320, **options)


def prompt(model: Any, first: int, count: int) -> list[int]:
    return [(first + 37 * i) % model.metadata.vocab_size for i in range(count)]


def said(result: Any) -> tuple[list[int], Any]:
    return result.token_ids, result.logprobs


@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
@pytest.mark.parametrize(("case", "stored"), CASES)
def test_a_hit_is_a_cold_run_to_the_bit(case: str, stored: str, chunk: int) -> None:
    with load(case, kv_cache_dtype=stored, prefix_cache=False) as cold:
        ids = prompt(cold, 5, 150)
        asked = [ids, ids[:33], ids[:64], ids[:65], ids[:100] + ids[:30], ids[3:]]
        expected = [greedy(cold, some, logprobs=EVERYTHING) for some in asked]
        assert {result.usage.cached_tokens for result in expected} == {0}
    with load(case, kv_cache_dtype=stored, prefill_chunk=chunk, cache_tokens=2048) as model:
        early = (0, 32) if model.loaded.cache.state_bytes else (32,)  # states are kept where a prompt is worth it
        for some, wanted, cached in zip(asked, expected, ((0,), early, (32,), (64,), (96,), (0,)), strict=True):
            found = greedy(model, some, logprobs=EVERYTHING)
            assert said(found) == said(wanted)
            assert found.usage.cached_tokens in cached
            again = greedy(model, some, logprobs=EVERYTHING)
            assert said(again) == said(wanted)
            assert again.usage.cached_tokens == (len(some) - 1) // BLOCK * BLOCK
        spoken = ids + expected[0].token_ids
        found = model.generate(spoken, temperature=0.0, max_new_tokens=1, logprobs=EVERYTHING)
        assert found.usage.cached_tokens == (len(spoken) - 1) // BLOCK * BLOCK > len(ids)
    with load(case, kv_cache_dtype=stored, prefix_cache=False) as cold:
        assert said(cold.generate(spoken, temperature=0.0, max_new_tokens=1, logprobs=EVERYTHING)) == said(found)


@pytest.mark.parametrize(("case", "stored"), CASES)
def test_together_in_a_cache_that_is_too_small(case: str, stored: str) -> None:
    """Requests give way to each other, blocks are evicted and found again."""
    with load(case, kv_cache_dtype=stored, prefix_cache=False) as cold:
        ids = prompt(cold, 5, 150)
        asked = [ids[: 20 + 13 * i] + prompt(cold, i % 3, 10) for i in range(10)]
        expected = [said(greedy(cold, some, logprobs=3)) for some in asked]
    with load(case, kv_cache_dtype=stored, cache_tokens=8 * BLOCK, max_batch_sequences=4) as model:
        for _ in range(2):
            handles = [
                model.submit(some, temperature=0.0, max_new_tokens=24, ignore_eos=True, logprobs=3) for some in asked
            ]
            assert [said(handle.result()) for handle in handles] == expected
        assert model.stats().cached_tokens > 0


@pytest.mark.parametrize("case", ["qwen3_next/heads1x", "qwen3_next/heads3x_sharded_bf16"])
def test_how_much_may_be_kept_of_states(case: str) -> None:
    with load(case, max_batch_sequences=3) as model:
        cache = model.loaded.cache
        assert cache.state_slots == 3 + cache.num_blocks, "behind each block once, as a gibibyte is enough for that"
        one = cache.state_bytes
        with pytest.raises(pio.ConfigError, match=f"prefix_cache=1 is too small: .* one moment takes {one} bytes"):
            model.update(prefix_cache=1)
        model.update(prefix_cache=2 * one)
        assert model.loaded.cache.state_slots == 3 + 2
        ids = prompt(model, 5, 110)
        assert [greedy(model, ids).usage.cached_tokens for _ in range(2)] == [0, 96]
        assert model.stats().kept_states == 2, "of the prompt, and of what its answer came to"
        model.update(prefix_cache=False)
        assert (model.loaded.cache.state_slots, model.stats().kept_states) == (3, 0)
        assert [greedy(model, ids).usage.cached_tokens for _ in range(2)] == [0, 0]
    with pytest.raises(pio.ConfigError, match="prefix_cache=1 is too small"):
        load(case, prefix_cache="1B")
    with pytest.raises(pio.OutOfMemoryError, match="smaller with cache_tokens, max_batch_sequences or prefix_cache"):
        load(case, prefix_cache="1GiB", cache_tokens=1 << 20, memory_limit="100MB")


def test_models_without_states_refuse_bytes_for_them() -> None:
    with pytest.raises(pio.ConfigError, match="prefix_cache=1GiB cannot be used: it is for the states of rec"):
        load("qwen3/tied_gqa2", prefix_cache="1GiB")
    with load("qwen3/tied_gqa2", profile="memory_efficient") as model:
        assert [greedy(model, prompt(model, 5, 40)).usage.cached_tokens for _ in range(2)] == [0, 32]
        with pytest.raises(pio.ConfigError, match="prefix_cache=5 cannot be used: it is for the states"):
            model.update(prefix_cache=5)


def test_logits_of_prompts_are_never_taken_from_the_cache() -> None:
    with load("qwen3/tied_gqa2") as model:
        ids = prompt(model, 5, 100)
        greedy(model, ids)
        whole = bits(model.logits(ids))
    with load("qwen3/tied_gqa2", prefix_cache=False) as model:
        assert bits(model.logits(ids)) == whole


def test_a_model_that_is_loaded_anew_has_forgotten_all() -> None:
    with load("qwen3/tied_gqa2") as model:
        ids = prompt(model, 5, 100)
        found = [greedy(model, ids).usage.cached_tokens for _ in range(2)]
        model.update(threads=1)
        found += [greedy(model, ids).usage.cached_tokens for _ in range(2)]
        model.update(prefix_cache=False)
        found += [greedy(model, ids).usage.cached_tokens for _ in range(2)]
    assert found == [0, 96, 0, 96, 0, 0]


def test_two_that_are_sent_together() -> None:
    """The second one reads what the first has computed meanwhile."""
    with load("qwen3/tied_gqa2", prefill_chunk=64) as model:
        ids = prompt(model, 5, 150)
        alone = greedy(model, ids[::-1], logprobs=3), greedy(model, ids, cache_salt="alone", logprobs=3)
        handles = [model.submit(ids, temperature=0.0, max_new_tokens=24, ignore_eos=True, logprobs=3) for _ in range(3)]
        results = [handle.result() for handle in handles]
        assert [said(result) for result in results] == [said(alone[1])] * 3
        assert [result.usage.cached_tokens for result in results] == [0, 128, 128]


def test_twenty_turns_compute_what_is_new() -> None:
    """New is where the template's text goes another way than prompt and answer before, which reasoning makes it do."""
    with pio.load("demo", context_length=2048) as model:
        messages: list[dict[str, Any]] = []
        before: list[int] = []
        for turn in range(20):
            messages.append({"role": "user", "content": f"Write function {turn}, that adds two numbers."})
            ids = list(model.loaded.prompts.encode(messages).token_ids)
            same = next((i for i, pair in enumerate(zip(ids, before, strict=False)) if pair[0] != pair[1]), len(before))
            answer = model.generate(messages, max_new_tokens=30, seed=turn)
            assert answer.usage.prompt_tokens - answer.usage.cached_tokens <= len(ids) - same + BLOCK
            assert answer.usage.cached_tokens % BLOCK == 0
            messages.append({"role": "assistant", "content": answer.text})
            before = [*ids, *answer.token_ids][:-1]  # the last one was never in the cache
        cold = model.generate(messages[:-1], max_new_tokens=30, seed=turn, cache_salt="cold")
    assert cold.token_ids == answer.token_ids and cold.usage.cached_tokens == 0 < answer.usage.cached_tokens
