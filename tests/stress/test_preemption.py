"""Sequences that do not fit into the cache together give way and begin again: to the same bits, in every cache."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import pio
from pio.engine.answer import Answer

pytestmark = pytest.mark.stress

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = [
    ("qwen3/tied_gqa2", "float32"),
    ("qwen3/head128_bf16", "float16"),
    ("qwen3/head128_bf16", "int8"),
    ("qwen3/sliding_layer_types_bf16", "float16"),
    ("qwen3_moe/top2_of_7", "float32"),
    ("glm4_moe_lite/as_published", "float32"),
    ("glm4_moe_lite/as_published", "float16"),
    ("glm4_moe_lite/as_published", "int8"),
    ("qwen3_next/heads1x", "float32"),
    ("qwen3_next/heads3x_sharded_bf16", "float16"),
    ("qwen3_next/heads3x_sharded_bf16", "int8"),
]


def load(case, kind, **options):
    return pio.load(GOLDEN / case, kv_cache_dtype=kind, context_length=96, **options)


def questions(model, rng, count):
    """Prompts and fields; lengths before, at and after the end of a cache block, draws and greedy ones."""
    vocabulary = model.metadata.vocab_size
    for i in range(count):
        prompt = [rng.randrange(vocabulary) for _ in range(rng.choice((1, 5, 15, 16, 17, 30)))]
        fields = {"temperature": 0.0} if i % 2 else {"temperature": 1.0, "seed": i, "top_k": 0, "top_p": 1.0}
        yield prompt, {"max_new_tokens": rng.choice((20, 35, 50)), "ignore_eos": True, "logprobs": 1, **fields}


def told(answer):
    return answer.token_ids, answer.logprobs  # floats are compared as they are, to the bit


@pytest.mark.parametrize(("case", "kind"), CASES)
def test_answers_that_gave_way_are_those_given_alone(sizes, monkeypatch, case, kind):
    begun = []
    begin = Answer.begin
    monkeypatch.setattr(Answer, "begin", lambda answer: (begun.append(answer), begin(answer)))
    rng = random.Random(f"{case} {kind}")
    with load(case, kind, max_batch_sequences=1) as model:
        asked = list(questions(model, rng, 6 * sizes.rounds))
        alone = [told(model.generate(prompt, **fields)) for prompt, fields in asked]
    assert len(begun) == len(asked)
    begun.clear()
    with load(case, kind, max_batch_sequences=4, cache_tokens=96, prefill_chunk=11) as model:
        handles = [model.submit(prompt, **fields) for prompt, fields in asked]
        together = [told(handle.result()) for handle in handles]
    assert len(begun) > len(asked), "the cache is too large: nobody gave way"
    assert together == alone


@pytest.mark.parametrize(("case", "kind"), [case for case in CASES if "next" in case[0] or "glm" in case[0]])
def test_what_a_sequence_leaves_behind_is_no_part_of_the_next(sizes, case, kind):
    """Slots and blocks are used again, after answers that ended and after some that were cut off in the middle."""
    rng = random.Random(f"{case} {kind}")
    with load(case, kind, max_batch_sequences=2, prefill_chunk=7) as model:
        asked = list(questions(model, rng, 5 * sizes.rounds))
        fresh = []
        for prompt, fields in asked:
            model.update(prefill_chunk=8 if model.runtime.prefill_chunk == 7 else 7)  # a new cache, all zeros
            fresh.append(told(model.generate(prompt, **fields)))
        again = []
        for prompt, fields in asked:
            cut = model.submit(prompt[::-1], max_new_tokens=60, ignore_eos=True).events()
            next(cut)
            cut.close()
            again.append(told(model.generate(prompt, **fields)))
    assert again == fresh


@pytest.mark.parametrize(("case", "kind"), CASES)
def test_answers_that_share_a_prompt_are_those_given_alone(sizes, case, kind):
    """Their blocks are copied before they are written to, and states too; some give way and begin again."""
    rng = random.Random(f"{case} {kind}")
    with load(case, kind, max_batch_sequences=4, cache_tokens=128, prefill_chunk=11) as model:
        vocabulary = model.metadata.vocab_size
        for length in (1, 31, 32, 33) * sizes.rounds:
            prompt = [rng.randrange(vocabulary) for _ in range(length)]
            fields = {"ignore_eos": True, "logprobs": 1, "top_k": 0, "top_p": 1.0, "temperature": 1.0}
            fields["max_new_tokens"] = rng.choice((5, 40))
            shared = [model.submit(prompt, n=n, seed=length, **fields) for n in (3, 6)]
            for handle in shared:
                for sample in handle.result().samples:
                    assert told(model.generate(prompt, seed=sample.seed, **fields)) == told(sample)
