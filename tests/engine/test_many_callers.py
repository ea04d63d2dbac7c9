"""Threads and event loops that ask one model at once: each gets the very answer that it gets alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import pio

REQUESTS, THREADS = 64, 16
TEXTS = ("def f", "import os\n", "class Node:\n    def __init__(self", "# the sum of all", "for i in range(", "x = [")


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with pio.load("demo", max_batch_sequences=6, prefill_chunk=24, cache_tokens=900) as loaded:  # they have to wait
        yield loaded


def request(i: int) -> dict[str, Any]:
    """Prompts of 1 to 200 tokens and answers of 1 to 25, some greedy, some drawn."""
    return {
        "prompt": TEXTS[i % len(TEXTS)] * (1 + i * i % 17),
        "max_new_tokens": 1 + i % 25,
        "temperature": 0.0 if i % 3 == 0 else 0.9,
        "seed": i,
        "priority": i % 4 - 1,
        "ignore_eos": True,
    }


def test_sixty_four_requests_from_threads_and_event_loops(model: Any) -> None:
    alone = [model.generate(**request(i)).text for i in range(REQUESTS)]
    found: dict[int, str] = {}
    gate = threading.Barrier(THREADS)

    def thread(first: int) -> None:
        gate.wait()
        for i in range(first, REQUESTS, THREADS):
            found[i] = model.generate_text(**request(i))

    async def streamed(i: int) -> str:
        return "".join([piece async for piece in model.submit(**request(i))])

    async def waited(i: int) -> str:
        return (await model.submit(**request(i))).text

    def loop(first: int) -> None:
        async def together() -> list[str]:
            mine = range(first, REQUESTS, THREADS)
            return list(await asyncio.gather(*((streamed if i % 2 else waited)(i) for i in mine)))

        gate.wait()
        found.update(zip(range(first, REQUESTS, THREADS), asyncio.run(together()), strict=True))

    threads = [threading.Thread(target=loop if n < 2 else thread, args=(n,)) for n in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [found[i] for i in range(REQUESTS)] == alone
    stats = model.stats()
    assert (stats.running, stats.waiting, stats.dropped) == (0, 0, 0) and stats.free_blocks == stats.blocks
