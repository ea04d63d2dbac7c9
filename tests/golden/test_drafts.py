"""With drafts, right and wrong ones, real layers give the answers and the logits that they give without, to the bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from drafters import EveryDraft, RandomDrafter

import pio

HERE = Path(__file__).parent
CASES = [
    ("qwen3/tied_gqa2", {"kv_cache_dtype": "float32"}),
    ("qwen3/tied_gqa2", {"quantize": "int4"}),
    ("qwen3/head128_bf16", {"kv_cache_dtype": "int8"}),
    ("qwen3/sliding_layer_types_bf16", {}),
    ("qwen3/yarn", {"activation_dtype": "bfloat16"}),
    ("qwen3_moe/sparse_step2_tied_sharded_bf16", {"quantize": "int8"}),
    ("qwen3_next/heads2x_unnormed_long", {}),
    ("qwen3_next/heads3x_sharded_bf16", {"quantize": "int4", "kv_cache_dtype": "int8"}),
    ("glm4_moe_lite/as_published", {}),
    ("glm4_moe_lite/as_published", {"kv_cache_dtype": "int8", "quantize": "int4"}),
]
REQUESTS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 3, "n": 2},
    {"temperature": 2.0, "seed": 4, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.2},
    {"temperature": 0.0, "no_repeat_ngram_size": 3, "min_new_tokens": 30},
]
EVERYTHING = 60  # log probabilities, which are float for float those of the logits


@contextmanager
def load(case: str, **options: Any) -> Iterator[Any]:
    with pio.load(
        HERE / case, context_length=112, cache_tokens=640, prefill_chunk=24, progress=False, **options
    ) as model:
        yield model


def asked(model: Any) -> list[tuple[list[int], dict[str, Any]]]:
    draw = random.Random(1)
    size = model.metadata.vocab_size
    prompts = [[draw.randrange(size) for _ in range(length)] for length in (3, 31, 32, 70)]
    fields = {"max_new_tokens": 40, "ignore_eos": True, "seed": 1, "logprobs": EVERYTHING}
    return [(prompt, {**fields, **request}) for prompt, request in zip(prompts, REQUESTS, strict=True)]


def said(result: Any) -> list[Any]:
    return [(answer.token_ids, answer.logprobs, answer.seed) for answer in (result, *result.samples)]


@pytest.mark.parametrize(
    ("case", "options"), CASES, ids=lambda given: given if isinstance(given, str) else "-".join(given)
)
def test_answers_and_logits_are_those_without_drafts(case: str, options: dict[str, Any]) -> None:
    with load(case, speculation="off", **options) as model:
        assert model.loaded.manager.speculation is None
        expected = [said(model.generate(prompt, **fields)) for prompt, fields in asked(model)]
    truth = {}
    with load(case, **options) as model:
        for (prompt, _), answers in zip(asked(model), expected, strict=True):
            truth[tuple(prompt)] = [tokens for tokens, _, _ in answers]

        def known(sequence: Any) -> list[int]:
            so_far = list(sequence.tokens[sequence.prompt_length :])
            answers = truth[tuple(sequence.tokens[: sequence.prompt_length])]
            return next((tokens for tokens in answers if tokens[: len(so_far)] == so_far), [])

        speculation = model.loaded.manager.speculation
        assert speculation is not None
        speculation.gate = EveryDraft()
        for seed in range(2):
            speculation.drafter = RandomDrafter(seed, model.metadata.vocab_size, known)
            alone = [said(model.generate(prompt, **fields)) for prompt, fields in asked(model)]
            assert alone == expected
            handles = [model.submit(prompt, **fields) for prompt, fields in asked(model)]
            assert [said(handle.result()) for handle in handles] == expected
        stats = model.stats()
        assert stats.free_blocks == stats.blocks
        assert 200 < stats.accepted_tokens < stats.drafted_tokens - 200
