"""How a model serves many callers: threads and coroutines, short prompts behind long ones, answers beside both."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from statistics import median, quantiles
from typing import Any, Final

from pio.benchmarks.report import Callers
from pio.benchmarks.subject import token_ids
from pio.plugin import TextModelPlugin

LOOPS: Final = 2  # event loops beside the threads
SHORT: Final = 20  # tokens of a prompt that comes behind a long one
LONG: Final = 8192  # tokens of that one
ENDLESS: Final = 3000  # tokens of prompts that come one after another
WATCHED: Final = 128  # tokens of an answer beside them
ROOM: Final = LONG + 8192  # tokens of the cache that all this takes

Asked = tuple[list[int], int]
"""A prompt, and how many tokens its answer has."""


def measure_callers(model: TextModelPlugin, threads: int, requests: int = 64) -> Callers:
    """Make requests of mixed length one after another and all at once, and watch what long prompts do to others.

    Args:
        model: A loaded model; nothing else runs on it. What prompts it knows from before is of no use to it.
        threads: From how many threads; two event loops ask for some of them, too.
        requests: How many.
    """
    room = model.loaded.context_length
    asked = [*_mixed(model, requests, room)]
    began = time.perf_counter()
    alone = [_answer(model, each) for each in asked]
    one_by_one = time.perf_counter() - began
    began = time.perf_counter()
    together = _together(model, asked, threads)
    at_once = time.perf_counter() - began
    long = min(LONG, room - 1)
    step, chunk = _steps(model, long)
    silences = _silences(model, min(ENDLESS, long))
    return Callers(
        requests=requests,
        threads=threads,
        loops=LOOPS,
        tokens=sum(count for _, count in asked),
        one_by_one=one_by_one,
        at_once=at_once,
        times_as_fast=one_by_one / at_once,
        equal=sum(a == b for a, b in zip(alone, together, strict=True)),
        step=step,
        chunk=chunk,
        long_prompt=long,
        short_prompt=SHORT,
        first_token=_behind(model, long),
        silence=median(silences),
        silence_p99=quantiles(silences, n=100, method="inclusive")[98],
    )


def _mixed(model: TextModelPlugin, requests: int, room: int) -> Iterator[Asked]:
    """Requests of a few and of many tokens, the same ones each time."""
    numbers = random.Random(64)
    for shift in range(requests):
        prompt = min(numbers.choice((12, 20, 48, 96)) + numbers.randrange(8), room // 2)
        yield token_ids(model, prompt, shift * 131), min(numbers.choice((24, 64, 128)), room - prompt)


def _fields(count: int) -> dict[str, Any]:
    return {"max_new_tokens": count, "temperature": 0.0, "ignore_eos": True}


def _answer(model: TextModelPlugin, asked: Asked) -> list[int]:
    prompt, count = asked
    return model.generate(prompt, **_fields(count)).token_ids


def _together(model: TextModelPlugin, asked: Sequence[Asked], threads: int) -> list[list[int]]:
    """Answers of requests that threads and event loops make at the same time."""
    of_threads = len(asked) * threads // (threads + LOOPS)
    rest = asked[of_threads:]
    with ThreadPoolExecutor(threads + LOOPS) as pool:
        answers = [pool.submit(_answer, model, each) for each in asked[:of_threads]]
        loops = [pool.submit(asyncio.run, _in_loop(model, rest[i::LOOPS])) for i in range(LOOPS)]
        found: list[list[int]] = [answer.result() for answer in answers]
        rows = [loop.result() for loop in loops]
    return found + [rows[i % LOOPS][i // LOOPS] for i in range(len(rest))]


async def _in_loop(model: TextModelPlugin, asked: Sequence[Asked]) -> list[list[int]]:
    async def one(each: Asked) -> list[int]:
        prompt, count = each
        return (await model.submit(prompt, **_fields(count))).token_ids

    return list(await asyncio.gather(*map(one, asked)))


def _steps(model: TextModelPlugin, long: int) -> tuple[float, float]:
    """Seconds of a step of one answer, and of one with a whole chunk of a long prompt."""
    timings = model.generate(token_ids(model, SHORT), **_fields(64)).timings
    prompt = model.generate(token_ids(model, long, 17), **_fields(1)).timings
    return 1 / timings.tokens_per_second, prompt.prefill / -(-long // model.runtime.prefill_chunk)


def _behind(model: TextModelPlugin, long: int) -> float:
    """Seconds to the first token of a short prompt that comes when a long one has begun; the median of five."""
    found: list[float] = []
    for i in range(5):
        before = model.submit(token_ids(model, long, 1000 + i), **_fields(1))
        while model.stats().running == 0 and not before.done:
            time.sleep(0.001)
        found.append(model.generate(token_ids(model, SHORT, 2000 + i), **_fields(1)).timings.time_to_first_token)
        before.cancel()
        _until(lambda: model.stats().running == 0)
    return median(found)


def _silences(model: TextModelPlugin, long: int) -> list[float]:
    """Seconds between two tokens of an answer beside long prompts that never end."""
    stop = threading.Event()

    def prompts() -> None:
        shift = 5000
        while not stop.is_set():
            handle = model.submit(token_ids(model, long, shift), **_fields(1))
            while not handle.done and not stop.is_set():
                time.sleep(0.01)
            handle.cancel()
            shift += 1

    feeder = threading.Thread(target=prompts)
    feeder.start()
    try:
        _until(lambda: model.stats().running > 0 or not feeder.is_alive())
        handle = model.submit(token_ids(model, SHORT), **_fields(min(WATCHED, model.loaded.context_length - SHORT)))
        times = [time.perf_counter() for _ in handle.events()]
    finally:
        stop.set()
        feeder.join()
    return [later - sooner for sooner, later in pairwise(times)]


def _until(reached: Callable[[], bool]) -> None:
    while not reached():
        time.sleep(0.001)
