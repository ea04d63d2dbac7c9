"""Sequences of real models that go on where another one stands: their logits are those of a fresh one."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pio
from pio.cache.batch import Batch
from pio.cache.protocol import Cache
from pio.engine.cache_manager import CacheManager
from pio.engine.sequence import Sequence
from pio.layers.decoder import Decoder
from pio.testing.compare import bits

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = [
    ("qwen3/tied_gqa2", "float32"),
    ("qwen3/head128_bf16", "int8"),
    ("glm4_moe_lite/as_published", "float16"),
    ("glm4_moe_lite/as_published", "int8"),
    ("qwen3_next/heads1x", "float32"),
    ("qwen3_next/heads3x_sharded_bf16", "int8"),
]
NOBODY: Any = None


class Run:
    """A model, a cache of its own and who holds it."""

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.cache: Cache = model.new_cache(320)
        self.manager = CacheManager(self.cache, 3)
        self.batch = Batch(40, 3, 3, 3)

    def tokens(self, first: int, count: int) -> array[int]:
        return array("i", ((first + 37 * i) % self.model.vocab_size for i in range(count)))

    def begin(self, tokens: array[int]) -> Sequence:
        s = Sequence(NOBODY, tokens)
        assert self.manager.admit(s, 0)
        return s

    def step(self, *sequences: Sequence) -> list[bytes]:
        """Compute all that is pending; return the last logits of each."""
        self.batch.begin()
        for s in sequences:
            assert self.manager.grow(s, len(s.tokens))
            self.batch.add(s.tokens[s.num_computed :], s.num_computed, s.blocks, 1, s.slot)
            s.num_computed = len(s.tokens)
        logits = self.model.forward(self.batch, self.cache)
        return [bits(logits[i].clone()) for i in range(len(sequences))]


@pytest.fixture(params=CASES, ids=" ".join)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    case, kind = request.param
    options = {"context_length": 96, "prefill_chunk": 40, "max_batch_sequences": 3, "progress": False}
    with pio.load(GOLDEN / case, kv_cache_dtype=kind, **options) as model:
        yield Run(model.loaded.model)


@pytest.mark.parametrize("length", [7, 32, 35])
def test_what_goes_on_from_another_one(run: Run, length: int) -> None:
    beginning = run.tokens(1, length)
    first, second = run.begin(beginning), Sequence(NOBODY, beginning)
    run.step(first)
    assert run.manager.fork(first, second, 0)
    second.num_computed = length
    first.tokens.extend(run.tokens(2, 3))
    second.tokens.extend(run.tokens(3, 2))
    found = run.step(second, first)
    run.manager.release(first)
    second.tokens.extend(run.tokens(4, 2))
    found += run.step(second)
    expected = run.step(run.begin(second.tokens[: length + 2]))
    expected += run.step(run.begin(beginning + run.tokens(2, 3)))
    run.manager.reset()
    expected += run.step(run.begin(second.tokens))
    assert found == expected
