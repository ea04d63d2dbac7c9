"""Requests of all kinds, mixed, from several threads: everybody gets an answer or an error, and nothing piles up."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

import pio
from pio.engine import prefix_writes

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


def shaped(model):
    return model.generate(PROMPT, response_format=["yes", "no"], seed=3).parsed


def counted(model):
    """In a shape, and behind a beginning that others have, too."""
    return model.generate([7] * 90, response_format="regex:[0-9]{4}", seed=3, cache_salt="mine").parsed


def awaited(model):
    async def answers():
        found = await asyncio.gather(*(model.submit(PROMPT, **GREEDY) for _ in range(2)))
        return [answer.text for answer in found]

    return asyncio.run(answers())


def copied(model):
    """What is drafted: the prompt holds what comes next."""
    return model.generate("a = 1\nb = 2\n" * 12, temperature=0, max_new_tokens=24).token_ids


def overdue(model):
    return model.generate([9] * 300, deadline=1e-6, **ENDLESS).finish_reason


KINDS = [stream, dropped, closed, result, late, logits, batch, several, cancelled]
KINDS += [shaped, counted, awaited, copied, overdue]


def test_mixed_requests_leave_nothing_behind(sizes, holdings, tmp_path, monkeypatch):
    rng = random.Random(21)
    monkeypatch.setattr(prefix_writes, "DELAY", 0.0)  # else the thread that writes starts at some time later
    kept = {"prefix_cache_path": tmp_path, "prefix_cache_disk": "32MB"}
    with pio.load("demo", max_batch_sequences=4, **kept) as model, ThreadPoolExecutor(8) as pool:
        expected = {kind: kind(model) for kind in KINDS}

        def all_of(count):
            kinds = [rng.choice(KINDS) for _ in range(count)]
            started = [(kind, pool.submit(kind, model)) for kind in kinds]
            assert [kind.__name__ for kind, future in started if future.result(GIVE_UP) != expected[kind]] == []

        all_of(sizes.requests // 4)  # until every thread has its heap
        before = holdings.now()
        all_of(sizes.requests)
        holdings.now().assert_flat_since(before, GROWTH)
