"""No wait outlives the thread it waits for, and whatever leaves a wait ends the request that it owned."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import weakref
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from needs import needs_fork
from own_signals import USUAL, send_to_main
from toy_manager import GREEDY, PROMPTS, ids, make, run_python, worker_threads
from toy_model import STEP, ToyCache, ToyDetokenizer, ToyManager, ToyModel, toy_greedy

from pio.engine.answer import Answer
from pio.engine.scheduler import Scheduler
from pio.errors import CancelledError, ConfigError, PioError

LONG = GREEDY.model_copy(update={"max_new_tokens": 60})


def waiting(call: Any) -> tuple[threading.Thread, list[Any]]:
    """Run a call in a thread of its own; what it returns or raises comes into the list."""
    heard: list[Any] = []

    def run() -> None:
        try:
            heard.append(call())
        except BaseException as error:
            heard.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, heard


def joined(threads: list[tuple[threading.Thread, list[Any]]]) -> list[Any]:
    for thread, _ in threads:
        thread.join(STEP)
        assert not thread.is_alive(), "it waits for ever"
    return [heard[0] for _, heard in threads]


# Who waits hears of the end


@pytest.mark.parametrize("end", ["drop", "close", "cancel"])
def test_the_end_of_a_request_reaches_all_who_wait_for_it(slow: tuple[ToyModel, ToyManager], end: str) -> None:
    model, manager = slow
    handle = manager.submit([1], LONG)
    other, stream = handle.events(), iter(handle)
    model.step()
    next(other)  # the others wait while the model stands in its next step
    threads = [waiting(handle.result), waiting(lambda: list(other)), waiting(lambda: list(handle))]
    if end == "close":
        stream.close()
    elif end == "cancel":
        handle.cancel()
    del stream
    assert [type(heard) for heard in joined(threads)] == [CancelledError] * 3


class Limit(BaseException):
    """What a signal handler of a host program raises."""


WAITS = {
    "result": lambda handle: handle.result(),
    "result in time": lambda handle: handle.result(timeout=1e9),
    "stream": lambda handle: list(handle),
    "events": lambda handle: list(handle.events()),
}


@pytest.mark.parametrize("error", [Limit, SystemExit, GeneratorExit, KeyboardInterrupt, TimeoutError, RuntimeError])
@pytest.mark.parametrize("wait", list(WAITS))
def test_any_exception_that_ends_a_wait_ends_the_request(
    slow: tuple[ToyModel, ToyManager], error: type[BaseException], wait: str
) -> None:
    _, manager = slow
    handle = manager.submit([1], LONG)
    raised = error("time is over")

    def handler(*_: object) -> None:
        raise raised

    main, before = threading.get_ident(), signal.signal(USUAL, handler)

    def press() -> None:
        while not sys._current_frames()[main].f_code.co_filename.endswith("waiters.py"):
            pass
        send_to_main(USUAL)

    try:
        presses = waiting(press)
        with pytest.raises(error) as found:
            WAITS[wait](handle)
        assert found.value is raised, "as the handler raised it"
    finally:
        joined([presses])
        signal.signal(USUAL, before)
    assert handle.done
    with pytest.raises(CancelledError):
        handle.result(STEP)


# Timeouts


@pytest.mark.parametrize("timeout", [0, -1, -0.5, float("-inf"), -(10**400), Decimal("-1"), Fraction(-1, 2), False])
def test_a_timeout_that_is_over_brings_its_error_at_once(slow: tuple[ToyModel, ToyManager], timeout: Any) -> None:
    model, manager = slow
    handle, logits = manager.submit([1], GREEDY), manager.submit_logits([1, 2])
    for waited in (handle, logits):
        with pytest.raises(TimeoutError, match="goes on"):
            waited.result(timeout)
        assert not waited.done
    model.step(100)
    assert ids(handle) == toy_greedy([1], 9)
    assert handle.result(timeout).token_ids == toy_greedy([1], 9), "what is there is there"


@pytest.mark.parametrize("timeout", [None, float("inf"), threading.TIMEOUT_MAX * 10, 10**400, Decimal("1e30"), 1e300])
def test_any_long_timeout_is_one(timeout: Any) -> None:
    manager = make()
    assert manager.submit([1], GREEDY).result(timeout).token_ids == toy_greedy([1], 9)
    assert manager.submit_logits([1, 2]).result(timeout).shape[0] == 2
    manager.close()


@pytest.mark.parametrize("timeout", [float("nan"), "5", b"5", [1], 1j, Decimal("nan"), object()])
def test_what_is_no_number_is_no_timeout(timeout: Any) -> None:
    manager = make()
    handle = manager.submit([1], GREEDY)
    with pytest.raises(ConfigError, match=r"timeout: found .* expected a number of seconds"):
        handle.result(timeout)
    assert ids(handle) == toy_greedy([1], 9)
    manager.close()


# The thread


def test_a_thread_that_the_system_refuses_once(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(PioError, match=r"refuses a thread .*can't start new thread"):
        manager.submit([1], GREEDY)
    assert ids(manager.submit([1], GREEDY)) == toy_greedy([1], 9)
    manager.close()
    assert not worker_threads()


def test_a_model_whose_thread_was_refused_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    manager = make()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(3):
        with pytest.raises(PioError, match="refuses a thread"):
            manager.submit_logits([1])
    freed: list[str] = []
    manager.close(lambda: freed.append("cache"))
    assert freed == ["cache"]


@pytest.mark.parametrize("error", [SystemExit("killed"), KeyboardInterrupt()])
def test_a_thread_that_is_killed_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    model = ToyModel(max_batch_sequences=2)
    model.slow, model.poison, model.error = True, 33, error
    manager = make(model)
    first = manager.submit([1], LONG)
    model.wait_for_step()
    handles = [manager.submit([33], GREEDY), first, *(manager.submit([i], LONG) for i in range(4))]
    (thread,) = worker_threads()
    threads = [waiting(handle.result) for handle in handles]
    model.step(100)
    assert {type(heard) for heard in joined(threads)} == {CancelledError}
    thread.join(STEP)
    model.poison = None
    assert ids(manager.submit([1], GREEDY)) == toy_greedy([1], 9), "the next request has a new thread"
    manager.close()


@pytest.mark.parametrize("name", ["schedule", "add", "remove"])
def test_an_error_in_the_engine_itself_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    model = ToyModel(max_batch_sequences=2)
    model.slow = True
    manager = make(model)
    handles = [manager.submit([1], LONG)]
    model.wait_for_step()
    handles += [manager.submit([i], LONG) for i in range(5)]
    real = getattr(Scheduler, name)

    def broken(*given: Any) -> Any:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Scheduler, name, broken)
    threads = [waiting(handle.result) for handle in handles]
    if name == "remove":
        handles[-1].cancel()
    model.step(200)
    for heard in joined(threads):
        assert isinstance(heard, PioError)
    monkeypatch.setattr(Scheduler, name, real)
    for prompt in PROMPTS:  # all blocks and slots are there
        assert ids(manager.submit(prompt, GREEDY)) == toy_greedy(prompt, 9)
    manager.close()


def test_an_error_while_the_thread_ends_leaves_its_role_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    manager = make(ToyModel())

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a fault")

    with monkeypatch.context() as patch:
        for name in ("add", "reset"):
            patch.setattr(Scheduler, name, broken)
        with pytest.raises(PioError):
            manager.submit([1], GREEDY).result(STEP)
        for thread in worker_threads():
            thread.join(STEP)
    assert ids(manager.submit([2], GREEDY)) == toy_greedy([2], 9)
    manager.close()


def test_nobody_waits_in_the_thread_that_he_waits_for() -> None:
    heard: list[BaseException] = []

    class Curious(ToyDetokenizer):
        def push(self, token_id: int) -> str:
            for call in (lambda: handle.result(STEP), lambda: list(handle), lambda: manager.logits([1])):
                try:
                    call()
                except PioError as error:
                    heard.append(error)
            return super().push(token_id)

    model = ToyModel()
    model.slow = True
    manager = ToyManager(model, ToyCache(40, 4), detokenizer=Curious)
    handle = manager.submit([1], GREEDY)
    model.step(100)
    with pytest.raises(CancelledError):
        handle.result(STEP)
    manager.close()
    assert len(heard) == 3 and "cannot wait" in str(heard[0])
    assert isinstance(heard[1], CancelledError), "the wait that failed has ended the request"


def test_what_is_closed_in_its_own_thread_is_freed_after_its_step() -> None:
    seen: list[str] = []

    class Closing(ToyDetokenizer):
        def push(self, token_id: int) -> str:
            manager.close(lambda: seen.append("freed"))
            seen.append("in the step")
            return super().push(token_id)

    model = ToyModel()
    model.slow = True
    manager = ToyManager(model, ToyCache(40, 4), detokenizer=Closing)
    handle = manager.submit([1], GREEDY)
    (thread,) = worker_threads()
    model.step(100)
    with pytest.raises(CancelledError, match="closed"):
        handle.result(STEP)
    thread.join(STEP)
    assert seen == ["in the step", "freed"]


def test_closing_at_once_from_many_threads(slow: tuple[ToyModel, ToyManager]) -> None:
    model, manager = slow
    handle = manager.submit([1], LONG)
    model.wait_for_step()
    freed: list[int] = []
    threads = [waiting(lambda: manager.close(lambda: freed.append(1))) for _ in range(6)]
    model.step(100)
    joined(threads)
    assert freed == [1] * 6 and not worker_threads()
    with pytest.raises(CancelledError):
        handle.result(STEP)


# Many who wait


def test_a_step_looks_at_none_of_those_that_wait(
    slow: tuple[ToyModel, ToyManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, manager = slow
    looked: list[int] = []
    dead = Answer.dead.fget
    assert dead is not None
    running = manager.submit([1], LONG)
    model.wait_for_step()
    waiting_ones = [manager.submit([i % 40] * 30, LONG) for i in range(3000)]
    model.step()
    model.wait_for_step()  # all of them are queued by now
    monkeypatch.setattr(Answer, "dead", property(lambda answer: (looked.append(1), dead(answer))[1]))
    for _ in range(5):
        model.step()
        model.wait_for_step()
    assert len(looked) < 100
    for handle in waiting_ones:
        handle.cancel()
    model.step(200)
    assert ids(running) == toy_greedy([1], 60)


def test_the_memory_of_those_that_were_cancelled_is_not_kept_until_their_turn(
    slow: tuple[ToyModel, ToyManager],
) -> None:
    model, manager = slow
    running = [manager.submit([i], LONG) for i in range(4)]  # no more fit beside these
    model.wait_for_step()
    gone = [weakref.ref(manager.submit([7] * 30, LONG)._request) for _ in range(500)]
    assert all(ref() is not None for ref in gone), "a handle that is merely dropped cancels nothing"
    for ref in gone:
        request = ref()
        assert request is not None
        request.cancel()
    del request
    model.step(2)
    model.wait_for_step()
    model.wait_for_step()
    gc.collect()
    assert sum(ref() is not None for ref in gone) == 0
    model.step(200)
    assert [ids(handle) for handle in running] == [toy_greedy([i], 60) for i in range(4)]


# Other processes, and the end of this one


@needs_fork
def test_a_forked_child_hears_that_the_model_is_not_there() -> None:
    done = run_python(
        """
        stream = handle.events()
        child = os.fork()
        if not child:
            for call in (handle.result, lambda: next(stream), lambda: manager.submit([1]), lambda: manager.logits([1])):
                say(call)
            manager.close(lambda: print("freed"))
            sys.exit(0)
        print(os.waitpid(child, 0)[1])
        model.step(100)
        print(len(handle.result().token_ids))
        """
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines[:4]] == ["PioError", "CancelledError", "PioError", "PioError"]
    assert all("fork" in line for line in (lines[0], *lines[2:4]))
    assert lines[4:] == ["freed", "0", "60"]


def test_calls_of_a_leaving_interpreter_end() -> None:
    """In a handler that runs after the model's end at exit, and in a finaliser as modules are taken down."""
    done = run_python(
        """
        class Host:
            def __del__(self, say=say):
                say(lambda: handle.result())
                say(lambda: manager.submit([1]).result())

        host = Host()
        host.itself = host  # not before the collector's last run
        atexit._clear()
        atexit.register(lambda: say(handle.result))
        atexit.register(lambda: say(lambda: manager.submit([1]).result()))
        import weakref
        atexit.register(weakref.finalize._exitfunc)
        threading.Thread(target=lambda: (threading.main_thread().join(), model.step(1000))).start()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["PioError", "CancelledError", "CancelledError", "PioError"]
