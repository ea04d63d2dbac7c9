"""Coroutines that wait for answers: any number of event loops, and every way of going away."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from toy_manager import GREEDY, PROMPTS, make, worker_threads
from toy_model import STEP, ToyManager, ToyModel

import pio
from pio.engine.handle import Handle
from pio.engine.loop_waiter import LoopWaiter
from pio.engine.request import Request
from pio.text.encoded_prompt import EncodedPrompt

LONG = GREEDY.model_copy(update={"max_new_tokens": 50})
Leave = Callable[[ToyManager], Awaitable[None]]


@pytest.fixture
def manager() -> Iterator[ToyManager]:
    made = make()
    yield made
    made.close()


async def ask(manager: ToyManager, prompt: list[int]) -> list[int]:
    return (await manager.submit(prompt, GREEDY)).token_ids


def test_answers_are_those_that_threads_get(manager: ToyManager) -> None:
    expected = [manager.submit(prompt, GREEDY).result(STEP) for prompt in PROMPTS]

    async def together() -> None:
        handles = [manager.submit(prompt, GREEDY) for prompt in PROMPTS]
        found = await asyncio.gather(*handles)
        assert [answer.token_ids for answer in found] == [answer.token_ids for answer in expected]
        assert (await handles[0]).token_ids == expected[0].token_ids  # again

    asyncio.run(together())
    asyncio.run(together())


def test_streams_are_those_that_threads_get(manager: ToyManager) -> None:
    expected = [(list(manager.submit(p, GREEDY)), list(manager.submit(p, GREEDY).events())) for p in PROMPTS]

    async def one(prompt: list[int]) -> tuple[list[str], list[Any]]:
        pieces = [piece async for piece in manager.submit(prompt, GREEDY)]
        return pieces, [event async for event in manager.submit(prompt, GREEDY).events()]

    async def together() -> list[tuple[list[str], list[Any]]]:
        return list(await asyncio.gather(*map(one, PROMPTS)))

    assert asyncio.run(together()) == expected


def test_loops_in_several_threads(manager: ToyManager) -> None:
    expected = [manager.submit(prompt, GREEDY).result(STEP).token_ids for prompt in PROMPTS]
    found: list[list[list[int]]] = []

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(ask(manager, prompt) for prompt in PROMPTS)))

    threads = [threading.Thread(target=lambda: found.append(asyncio.run(together()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    found.append([manager.submit(prompt, GREEDY).result(STEP).token_ids for prompt in PROMPTS])
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_no_thread_waits(manager: ToyManager) -> None:
    async def together() -> set[threading.Thread]:
        waiting = asyncio.gather(*(ask(manager, PROMPTS[i % 6]) for i in range(40)))
        await asyncio.sleep(0)
        found = set(threading.enumerate())
        await waiting
        return found

    before = set(threading.enumerate())
    assert asyncio.run(together()) - before <= set(worker_threads())


def test_a_failed_request_raises_in_its_coroutine() -> None:
    model = ToyModel()
    manager = make(model)
    model.poison = 30

    async def both() -> None:
        bad, good = manager.submit([30, 2], GREEDY), manager.submit([4], GREEDY)
        with pytest.raises(pio.PioError, match="poison"):
            await bad
        with pytest.raises(pio.PioError, match="poison"):
            async for _ in bad:
                pass
        with contextlib.suppress(pio.PioError):  # it may have run in the same step
            await good

    asyncio.run(both())
    manager.close()


def test_a_closed_model_ends_coroutines() -> None:
    model = ToyModel()
    manager = make(model)
    model.slow = True

    async def wait() -> None:
        handle = manager.submit([1], LONG)
        closing = asyncio.get_running_loop().run_in_executor(None, manager.close)
        model.step(1)
        with pytest.raises(pio.CancelledError, match="closed"):
            await handle
        model.step(99)
        await closing

    asyncio.run(wait())


def test_a_time_limit_of_asyncio_cancels(manager: ToyManager) -> None:
    async def wait(model: ToyModel) -> None:
        handle = slow.submit([1], LONG)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(handle, 0.01)
        assert handle.done
        model.slow = False
        model.step(99)

    model = ToyModel()
    model.slow = True
    slow = make(model)
    asyncio.run(wait(model))
    slow.close()


# Ways of going away. Each leaves a request that runs, waits or has not begun.


async def cancel(manager: ToyManager) -> None:
    handle = manager.submit(PROMPTS[2], LONG)
    await asyncio.sleep(0)
    handle.cancel()


async def task_cancelled_while_submitting(manager: ToyManager) -> None:
    task = asyncio.ensure_future(asyncio.to_thread(manager.submit, PROMPTS[2], LONG))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    del task


async def _read(manager: ToyManager, count: int) -> None:
    async for _ in manager.submit(PROMPTS[2], LONG).events():
        count -= 1
        if not count:
            return


async def between_items(manager: ToyManager) -> None:
    await _read(manager, 1)


async def task_cancelled_while_asleep(manager: ToyManager) -> None:
    async def read() -> None:
        async for _ in manager.submit(PROMPTS[2], LONG).events():
            await asyncio.sleep(60)

    await _ended(asyncio.ensure_future(read()))


async def task_cancelled_while_it_waits(manager: ToyManager) -> None:
    async def wait() -> None:
        await manager.submit(PROMPTS[2], LONG)

    await _ended(asyncio.ensure_future(wait()))


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def aclose(manager: ToyManager) -> None:
    async with contextlib.aclosing(manager.submit(PROMPTS[2], LONG).events()) as events:
        await anext(events)


async def garbage_collected(manager: ToyManager) -> None:
    async def pieces() -> AsyncIterator[Any]:
        async for event in manager.submit(PROMPTS[2], LONG).events():
            yield event

    circle: list[Any] = [pieces()]
    circle.append(circle)
    await anext(circle[0])
    del circle
    gc.collect()


async def several_answers(manager: ToyManager) -> None:
    drawn = LONG.model_copy(update={"n": 3, "temperature": 1.0})
    handle = manager.submit(PROMPTS[2], drawn)
    await anext(handle.events())


WAYS: list[Leave] = [
    cancel,
    task_cancelled_while_submitting,
    between_items,
    task_cancelled_while_asleep,
    task_cancelled_while_it_waits,
    aclose,
    garbage_collected,
    several_answers,
]


@pytest.mark.parametrize("leave", WAYS)
def test_a_request_dies_when_its_caller_goes_away(leave: Leave, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model stands still meanwhile, so that none can have come to its end by itself."""
    model, requests = ToyModel(), list[Any]()
    model.slow = True
    manager = make(model)
    submit = manager.submit

    def recorded(*given: Any) -> Handle:
        handle = submit(*given)
        requests.append(handle._request)
        return handle

    monkeypatch.setattr(manager, "submit", recorded)

    async def once() -> None:
        model.step(3)  # enough for the first token
        await leave(manager)

    asyncio.run(once())
    gc.collect()
    assert len(requests) == 1 and requests[0].dead
    model.slow = False
    model.step(99)
    manager.close()


@pytest.mark.parametrize("leave", WAYS)
def test_nothing_stays_of_who_goes_away(leave: Leave) -> None:
    """Two hundred times, beside answers that go on: no request, no block, no lost task."""
    manager = make(num_blocks=60)
    expected = manager.submit(PROMPTS[1], GREEDY).result(STEP).token_ids

    lost: list[Any] = []

    async def many() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
        for _ in range(20):
            others = [asyncio.ensure_future(ask(manager, PROMPTS[1])) for _ in range(2)]
            await asyncio.gather(*(leave(manager) for _ in range(10)))
            assert await asyncio.gather(*others) == [expected] * 2

    gc.freeze()  # what tests before have left is not looked through two hundred times
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            asyncio.run(many())
            gc.collect()
    finally:
        gc.unfreeze()
    assert lost == []
    assert_idle(manager)
    assert manager.submit(PROMPTS[1], GREEDY).result(STEP).token_ids == expected
    manager.close()


def test_a_loop_that_is_closed_over_a_waiting_coroutine() -> None:
    """Whoever closes a loop by hand cancels nothing: the next token finds nobody."""
    model = ToyModel()
    model.slow = True
    manager = make(model)
    handle = manager.submit([1], LONG)
    loop = asyncio.new_event_loop()
    task = loop.create_task(handle._answer())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not handle.done
    model.slow = False
    model.step(99)
    manager.submit([1], GREEDY).result(STEP)  # nine tokens of this one, where the other would have had fifty
    assert handle._request.dead
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    manager.close()


def assert_idle(manager: ToyManager) -> None:
    """All blocks are free once a later request has gone through: the worker forgets what died before it."""
    manager.submit([1], GREEDY).result(STEP)
    scheduler = manager._worker._steps.scheduler  # type: ignore[union-attr]
    done = threading.Event()
    for _ in range(200):
        if not scheduler.busy:
            break
        done.wait(0.01)
    assert not scheduler.busy
    assert scheduler.cache.num_free == scheduler.cache.num_blocks


@pytest.mark.parametrize("place", ["release", "_wake_all"])
def test_a_coroutine_wakes_although_whoever_should_wake_it_was_interrupted(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a signal handler's exception in the midst of ``cancel``."""

    def interrupted(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    model = ToyModel()
    model.slow = True
    manager = make(model)

    async def wait() -> None:
        handle = manager.submit([1], LONG)
        task = asyncio.ensure_future(handle._answer())
        await asyncio.sleep(0)
        monkeypatch.setattr(LoopWaiter if place == "release" else Request, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            handle.cancel()
        with pytest.raises(pio.CancelledError):
            await task

    asyncio.run(wait())
    model.slow = False
    model.step(99)
    manager.close()


def test_events_that_are_there_already_hold_no_loop_up(manager: ToyManager) -> None:
    async def read() -> int:
        handle = manager.submit([1], GREEDY)
        await handle
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        other = asyncio.ensure_future(tick())
        assert len([event async for event in handle.events()]) == 9
        other.cancel()
        return ticks

    assert asyncio.run(read()) >= 9


def test_what_is_submitted_and_dropped_is_cancelled() -> None:
    model = ToyModel()
    manager = make(model)
    model.slow = True
    request = manager.submit([1], LONG)._request
    assert request.dead  # nobody could have its answer any more
    model.step(99)
    manager.close()


def test_a_stream_keeps_its_request_alive(manager: ToyManager) -> None:
    assert len(list(manager.submit([1], GREEDY).events())) == 9
    pieces: list[str] = []
    for piece in manager.submit([1], GREEDY):
        gc.collect()
        pieces.append(piece)
    handle: Handle = manager.submit([1], GREEDY)
    assert "".join(pieces) == handle.result(STEP).text


def test_logits_in_a_loop(manager: ToyManager) -> None:
    async def wait() -> Any:
        return await manager.submit_logits(EncodedPrompt(tuple(PROMPTS[5])))

    assert asyncio.run(wait()).tolist() == manager.logits(EncodedPrompt(tuple(PROMPTS[5]))).tolist()


def test_a_model_is_an_async_context_manager() -> None:
    async def run() -> str:
        async with pio.load("demo") as model:
            answer = await model.submit("def f", max_new_tokens=5, temperature=0)
            pieces = [piece async for piece in model.stream("def f", max_new_tokens=5, temperature=0)]
            assert "".join(pieces) == answer.text
        assert not model.is_loaded
        return answer.text

    assert asyncio.run(run())
