"""Requests of all kinds, mixed, from several threads: everybody gets an answer or an error, and nothing piles up."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

import pio

pytestmark = pytest.mark.stress

PROMPT = "def area(width, height):\n"
GREEDY = {"temperature": 0, "max_new_tokens": 6, "ignore_eos": True}
ENDLESS = {"max_new_tokens": 1500, "ignore_eos": True}
GIVE_UP = 120.0  # seconds after which somebody hangs
GROWTH = 24 << 20  # bytes; heaps of several threads settle late


def stream(model):
    return "".join(model.stream(PROMPT, **GREEDY))


def dropped(model):
    pieces = model.stream(PROMPT, **ENDLESS)
    next(pieces)


def closed(model):
    events = model.submit(PROMPT, n=2, **ENDLESS).events()
    next(events)
    events.close()


def result(model):
    return model.submit(PROMPT, **GREEDY).result(GIVE_UP).text


def late(model):
    handle = model.submit(PROMPT, **ENDLESS)
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.001)
    handle.cancel()


def logits(model):
    return model.logits([5, 6, 7]).shape


def batch(model):
    return [answer.text for answer in model.infer_batch([PROMPT, PROMPT], **GREEDY)]


def several(model):
    return len(model.generate(PROMPT, n=3, max_new_tokens=6).samples)


def cancelled(model):
    handle = model.submit([7] * 700, **ENDLESS)
    handle.cancel()
    with pytest.raises(pio.CancelledError):
        handle.result(GIVE_UP)


KINDS = [stream, dropped, closed, result, late, logits, batch, several, cancelled]


def test_mixed_requests_leave_nothing_behind(sizes, holdings):
    rng = random.Random(21)
    with pio.load("demo", max_batch_sequences=4) as model, ThreadPoolExecutor(8) as pool:
        expected = {kind: kind(model) for kind in KINDS}

        def all_of(count):
            kinds = [rng.choice(KINDS) for _ in range(count)]
            started = [(kind, pool.submit(kind, model)) for kind in kinds]
            assert [kind.__name__ for kind, future in started if future.result(GIVE_UP) != expected[kind]] == []

        all_of(sizes.requests // 4)  # until every thread has its heap
        before = holdings.now()
        all_of(sizes.requests)
        holdings.now().assert_flat_since(before, GROWTH)
