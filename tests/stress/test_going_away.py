"""Every way in which callers of an event loop go away, again and again: what they held is free at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
import warnings

import pytest

import pio

pytestmark = pytest.mark.stress

FREE_WITHIN = 0.25  # seconds until nothing of it is left and the next request has its answer
ENDLESS = {"max_new_tokens": 1500, "ignore_eos": True}
SHORT = {"max_new_tokens": 1, "temperature": 0}


def prompt(rng):
    return [rng.randrange(1, 4000) for _ in range(rng.choice((3, 200, 900)))]


async def cancel(model, rng):
    handle = model.submit(prompt(rng), **ENDLESS)
    await asyncio.sleep(rng.random() * 0.02)
    handle.cancel()


async def task_cancelled_while_submitting(model, rng):
    task = asyncio.ensure_future(asyncio.to_thread(model.submit, prompt(rng), **ENDLESS))
    await asyncio.sleep(0)
    await ended(task)


async def between_items(model, rng):
    async for _ in model.submit(prompt(rng), **ENDLESS).events():
        break


async def task_cancelled_while_asleep(model, rng):
    async def read():
        async for _ in model.submit(prompt(rng), **ENDLESS).events():
            await asyncio.sleep(60)

    task = asyncio.ensure_future(read())
    await asyncio.sleep(rng.random() * 0.02)
    await ended(task)


async def aclose(model, rng):
    async with contextlib.aclosing(model.submit(prompt(rng), n=2, **ENDLESS).events()) as events:
        await anext(events)


async def garbage_collected(model, rng):
    async def pieces():
        async for event in model.submit(prompt(rng), **ENDLESS).events():
            yield event

    circle = [pieces()]
    circle.append(circle)
    await anext(circle[0])
    del circle
    gc.collect()


async def ended(task):
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    del task


def in_a_loop(way):
    return lambda model, rng: asyncio.run(way(model, rng))


def loop_closed(model, rng):
    """Whoever closes a loop by hand cancels nothing: the next token finds nobody."""

    async def wait():
        await model.submit(prompt(rng), **ENDLESS)

    loop = asyncio.new_event_loop()
    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(rng.random() * 0.02))
    loop.close()
    task._log_destroy_pending = False  # that warning is for whoever closed it


WAYS = [
    *map(in_a_loop, (cancel, task_cancelled_while_submitting, between_items, task_cancelled_while_asleep)),
    *map(in_a_loop, (aclose, garbage_collected)),
    loop_closed,
]
NAMES = ["cancel", "while submitting", "between items", "asleep", "aclose", "garbage", "loop closed"]


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_nothing_is_left(sizes, way):
    """Beside an answer that runs, one that waits for its turn, and a prompt that is read."""
    rng, times = random.Random(22), []
    with pio.load("demo", max_batch_sequences=3, prefill_chunk=64) as model, warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = model.generate([5, 6, 7], **SHORT).token_ids
        for _ in range(sizes.leaves):
            others = [model.submit(prompt(rng), **ENDLESS) for _ in range(rng.randrange(4))]
            way(model, rng)
            began = time.perf_counter()
            for other in others:
                other.cancel()
            assert model.submit([5, 6, 7], **SHORT).result(60).token_ids == expected
            found = model.stats()
            if found.running or found.waiting:  # a loop that was closed: the next token tells
                assert way is loop_closed
                while model.stats().running:
                    model.generate([5, 6, 7], **SHORT)
                found = model.stats()
            times.append(time.perf_counter() - began)
            assert (found.running, found.waiting, found.free_blocks) == (0, 0, found.blocks)
        gc.collect()
    if sizes.long:
        assert max(times) < FREE_WITHIN, f"the slowest: {sorted(times)[-5:]}"
