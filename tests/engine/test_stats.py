"""What a model counts: every answer once, every token once, and nothing that is left over."""

from __future__ import annotations

import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from toy_manager import GREEDY, PROMPTS, make
from toy_model import STEP, ToyModel

import pio
from pio.prometheus import ModelCollector


def test_every_answer_and_every_token_counts_once() -> None:
    model = ToyModel()
    manager = make(model)
    for handle in [manager.submit(prompt, GREEDY) for prompt in PROMPTS]:
        handle.result(STEP)
    found = manager.stats()
    assert (found.finished, found.dropped) == (len(PROMPTS), 0)
    assert found.prompt_tokens == sum(map(len, PROMPTS))
    assert found.completion_tokens == 9 * len(PROMPTS)
    assert found.steps == len(model.steps)
    assert (found.blocks, found.encoded_media) == (40, 0)
    manager.close()
    with pytest.raises(pio.PioError, match="closed"):
        manager.stats()


def test_who_has_an_answer_finds_it_counted_and_its_room_free() -> None:
    manager, switches = make(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for count in range(1, 200):
            manager.submit([count % 30], GREEDY).result(STEP)
            found = manager.stats()
            assert (found.running, found.finished, found.completion_tokens) == (0, count, 9 * count)
            assert found.free_blocks == found.blocks
    finally:
        sys.setswitchinterval(switches)
        manager.close()


def test_logits_are_no_tokens_of_an_answer() -> None:
    manager = make()
    for prompt in ([1], [1, 2]):
        manager.logits(prompt)
    found = manager.stats()
    assert (found.finished, found.prompt_tokens, found.completion_tokens) == (2, 3, 0)
    manager.close()


def test_answers_to_one_prompt_read_it_once() -> None:
    manager = make()
    drawn = GREEDY.model_copy(update={"n": 3, "temperature": 1.0})
    manager.submit(PROMPTS[2], drawn).result(STEP)
    found = manager.stats()
    assert (found.finished, found.prompt_tokens, found.completion_tokens) == (3, len(PROMPTS[2]), 27)
    manager.close()


def test_what_runs_waits_and_was_dropped() -> None:
    model = ToyModel(max_batch_sequences=1)
    model.slow = True
    manager = make(model)
    handles = [manager.submit([token], GREEDY) for token in (1, 2, 3)]
    model.wait_for_step()
    model.step()
    model.wait_for_step()
    found = manager.stats()
    assert (found.running, found.waiting, found.finished, found.dropped) == (1, 2, 0, 0)
    assert found.blocks - found.free_blocks == 1
    handles[1].cancel()
    model.slow = False
    model.step(99)
    handles[2].result(STEP)
    found = manager.stats()
    assert (found.finished, found.dropped) == (2, 1)
    manager.close()


def test_prometheus_reads_what_stats_says() -> None:
    with pio.load("demo") as model:
        registry = CollectorRegistry()
        registry.register(ModelCollector({"demo": model}))
        model.generate("def f", max_new_tokens=5, ignore_eos=True)
        text = generate_latest(registry).decode()
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels == {"model": "demo"}
        }
        stats = model.stats()
        assert found["pio_completion_tokens_total"] == stats.completion_tokens == 5
        assert found["pio_prompt_tokens_total"] == stats.prompt_tokens > 0
        assert found["pio_answers_finished_total"] == 1 and found["pio_answers_running"] == 0
        assert found["pio_cache_blocks_free"] <= found["pio_cache_blocks"] == stats.blocks
        assert len(found) == 20
    assert 'model="demo"' not in generate_latest(registry).decode()  # it is not loaded any more
