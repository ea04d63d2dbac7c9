"""Loading, updating and clean-up at any moment: in handlers, in other threads, and where the folder is gone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from hooked_plugin import GREEDY, PROMPT, load
from needs import needs_alarm, needs_fork
from own_signals import USUAL, send

import pio
from pio.engine.runner import Runner
from pio.engine.waiters import Waiters
from pio.engine.worker import Worker
from pio.memory.allocation import allocated_bytes
from pio.models.qwen3_0_6b.plugin import Qwen3_0_6BPlugin

ENDLESS = {"max_new_tokens": 1900, "ignore_eos": True}
LONG = 60.0  # seconds after which somebody hangs
DEMO = Path(pio.__file__).parent / "demo"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(DEMO, tmp_path / "model")


@pytest.fixture
def model(folder):
    with load(folder) as loaded:
        yield loaded


def failing(times, error):
    """Return what raises an error so many times."""
    left = [error] * times

    def fail():
        if left:
            raise left.pop()

    return fail


# Updates that fail


def test_an_update_needs_no_folder(model, folder):
    expected = model.generate_text(PROMPT, **GREEDY)
    shutil.rmtree(folder, ignore_errors=os.name == "nt")  # Windows keeps what is mapped
    assert not (folder / "config.json").exists()
    assert model.update(prefill_chunk=5).prefill_chunk == 5
    assert model.generate_text(PROMPT, **GREEDY) == expected
    model.during_build = failing(1, pio.OutOfMemoryError("no room"))
    with pytest.raises(pio.OutOfMemoryError, match="no room"):
        model.update(prefill_chunk=7)
    assert model.runtime.prefill_chunk == 5 and model.generate_text(PROMPT, **GREEDY) == expected


@pytest.mark.parametrize("error", [pio.OutOfMemoryError("refused"), KeyboardInterrupt(), ZeroDivisionError("plugin")])
def test_a_model_that_cannot_be_had_again_says_so_and_is_loaded_later(model, error):
    before, expected = model.runtime, model.generate_text(PROMPT, **GREEDY)
    held = allocated_bytes()
    times = [error, pio.OutOfMemoryError("refused again")]
    model.during_build = lambda: (_ for _ in ()).throw(times.pop(0)) if times else None
    with pytest.raises(type(error)) as found:
        model.update(prefill_chunk=7)
    told = str(found.value) + " ".join(getattr(found.value, "__notes__", []))
    assert "could not be loaded again" in told and "refused again" in told and "load_model()" in told
    assert not model.is_loaded and model.runtime == before and allocated_bytes() < held
    with pytest.raises(pio.PioError, match="not loaded"):
        model.generate(PROMPT)
    assert model.load_model().generate_text(PROMPT, **GREEDY) == expected


@pytest.mark.parametrize("options", [{"context_length": 10**6}, {"prefill_chunk": "x"}, {"quantize_policy": 3}])
def test_what_can_be_refused_at_once_stops_no_request(model, options):
    running = model.submit("import os\n", **ENDLESS)
    with pytest.raises(pio.ConfigError):
        model.update(**options)
    assert not running.done
    next(running.events())


# Clean-ups


def test_a_clean_up_ends_a_load_in_another_thread(model):
    built, go_on = threading.Event(), threading.Event()

    def stop():
        built.set()
        assert go_on.wait(LONG)

    model.during_build = stop
    for change in (model.load_model, lambda: model.update(prefill_chunk=6)):
        model.during_build = lambda: None
        model.load_model()
        model.during_build = stop
        with ThreadPoolExecutor(2) as pool:
            built.clear(), go_on.clear()
            loading = pool.submit(change)
            assert built.wait(LONG)
            asked = pool.submit(model.generate, PROMPT)  # waits for the load
            assert model.cleanup() and not model.is_loaded  # does not
            go_on.set()
            with pytest.raises(pio.CancelledError, match="cleaned up while"):
                loading.result(LONG)
            with pytest.raises(pio.PioError, match="not loaded"):
                asked.result(LONG)
        assert not model.is_loaded


def test_clean_ups_at_once_and_again(model):
    running = [model.submit(PROMPT, **ENDLESS) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda _: model.cleanup(), range(12)))
    assert model.cleanup() and not model.is_loaded
    for handle in running:
        with pytest.raises(pio.CancelledError):
            handle.result(LONG)


def test_a_load_that_begins_in_a_load_of_the_same_thread_is_refused(model):
    found = []

    def change():
        for call in (lambda: model.update(prefill_chunk=9), model.load_model, lambda: model.generate(PROMPT)):
            with pytest.raises(pio.PioError, match="this thread is loading the model"):
                call()
            found.append(call)

    model.during_build = change
    model.update(prefill_chunk=6)
    assert len(found) == 3 and model.runtime.prefill_chunk == 6
    assert model.generate_text(PROMPT, **GREEDY)


def test_a_clean_up_in_the_middle_of_a_load_of_the_same_thread(model):
    model.during_build = model.cleanup  # as a handler does it
    with pytest.raises(pio.CancelledError, match="cleaned up while"):
        model.update(prefill_chunk=6)
    assert not model.is_loaded
    model.during_build = lambda: None
    assert model.load_model().generate_text(PROMPT, **GREEDY)


# Interrupts between any two instructions


class Interrupt(BaseException):
    """Comes between two instructions, as the exception of a signal handler does."""


def interrupted_at(instruction, call):
    """Call, with an exception before the given instruction of pio's; return how many come before the call waits."""
    seen = waits = 0

    def trace(frame, event, _):
        nonlocal seen, waits
        if not frame.f_code.co_filename.startswith(str(DEMO.parent)):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen += 1
            if seen == instruction:
                raise Interrupt
            if frame.f_code is Waiters.wait.__code__:
                waits = waits or seen
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return waits or seen


KEPT = []  # a handle that is dropped cancels its request, in instructions of its own

CALLS = {
    "generate": lambda model: model.generate([1, 2, 3], max_new_tokens=1, ignore_eos=True),
    "submit": lambda model: KEPT.append(model.submit([1, 2, 3], max_new_tokens=1, ignore_eos=True)),
    "stream": lambda model: list(model.stream([1, 2, 3], max_new_tokens=1, ignore_eos=True)),
    "infer_batch": lambda model: model.infer_batch([[1], [2, 3]], max_new_tokens=1, ignore_eos=True),
    "logits": lambda model: model.logits([1, 2, 3]),
}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # one that was opened, and its with not begun
@pytest.mark.parametrize("name", list(CALLS))
def test_no_exception_leaves_a_request_behind_that_nobody_owns(name, monkeypatch):
    """Wherever a signal handler's exception lands, from the call's first instruction into its wait."""
    queued = []
    put = Worker.put
    monkeypatch.setattr(Worker, "put", lambda worker, new: (queued.extend(new), put(worker, new))[1])
    go_on = threading.Event()
    forward = Runner.forward

    def held(runner, plan):
        assert go_on.wait(5 * LONG)
        return forward(runner, plan)

    with pio.load("demo", max_batch_sequences=1) as model, ExitStack() as stack:
        CALLS[name](model)
        instructions = interrupted_at(0, lambda: CALLS[name](model))
        assert instructions > 500
        monkeypatch.setattr(Runner, "forward", held)
        stack.callback(go_on.set)
        running = model.submit([7], **ENDLESS)  # it stands in its first step: what is queued stays in the queue
        # submit's last instruction is the return, before which Python looks for no signal
        end = instructions if name == "submit" else instructions + 20
        for at in (*range(1, instructions, 41), *range(instructions - 60, end)):
            queued.clear()
            with pytest.raises(Interrupt):
                interrupted_at(at, lambda: CALLS[name](model))
            assert all(sequence.consumer.dead for sequence in queued), f"before instruction {at} of {instructions}"
        running.cancel()
    KEPT.clear()


CHANGES = {"load_model": lambda model: model.load_model(), "update": lambda model: model.update(prefill_chunk=6)}


@pytest.mark.parametrize("name", list(CHANGES))
def test_no_exception_leaves_a_load_behind_that_is_never_over(model, name):
    """The model is there when it is next asked, or can be loaded again; nobody waits for a load that has ended."""
    expected = model.generate_text(PROMPT, **GREEDY)
    instructions = interrupted_at(0, lambda: CHANGES[name](model))
    assert instructions > 50
    for at in range(1, instructions, 3):
        model.update(prefill_chunk=5)
        with pytest.raises(Interrupt):
            interrupted_at(at, lambda: CHANGES[name](model))
        if name == "load_model":
            model.load_model()
        assert model.generate_text(PROMPT, **GREEDY) == expected, f"before instruction {at} of {instructions}"


class Left(Qwen3_0_6BPlugin):
    """Gets a signal in the middle of building its model, and takes no further step before the load hears of it."""

    signals = 0

    def build_model(self, config, source, runtime, budget):
        if self.signals:
            self.signals -= 1
            send(USUAL)
            while True:
                source.check()
        return super().build_model(config, source, runtime, budget)


@pytest.fixture
def leaving():
    def leave(*_):
        raise Interrupt

    before = signal.signal(USUAL, leave)
    made = Left()
    made.initialize(path="demo")
    with made.load_model():
        yield made
    signal.signal(USUAL, before)


def test_an_update_that_is_left_ends_with_the_model_as_it_was(leaving):
    before, expected, held = leaving.runtime, leaving.generate_text(PROMPT, **GREEDY), allocated_bytes()
    leaving.signals = 1
    with pytest.raises(Interrupt):
        leaving.update(context_length=512)
    assert leaving.is_loaded and leaving.runtime == before
    assert leaving.generate_text(PROMPT, **GREEDY) == expected and allocated_bytes() == held


def test_a_load_that_is_left_gives_its_memory_back(leaving):
    expected = leaving.generate_text(PROMPT, **GREEDY)
    leaving.cleanup()
    held = allocated_bytes()
    leaving.signals = 1
    with pytest.raises(Interrupt):
        leaving.load_model()
    assert not leaving.is_loaded and allocated_bytes() == held
    assert leaving.load_model().generate_text(PROMPT, **GREEDY) == expected


def test_a_handler_may_use_the_model_that_its_thread_is_loading(model):
    heard = []

    def handler(*_):
        heard.append(model.generate_text(PROMPT, **GREEDY))
        model.update(prefill_chunk=7)

    expected = model.generate_text(PROMPT, **GREEDY)
    signals = [USUAL]
    before = signal.signal(USUAL, handler)
    try:
        model.during_build = lambda: send(signals.pop()) if signals else None
        model.update(prefill_chunk=6)
    finally:
        signal.signal(USUAL, before)
    assert heard == [expected] and model.runtime.prefill_chunk == 7


# Other processes


def run_python(body):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=LONG,
        env={**os.environ, "PYTHONPATH": str(DEMO.parents[1])},
        check=False,
    )


@needs_fork
def test_a_forked_child_loads_anew_whatever_its_parent_was_doing():
    done = run_python(
        """
        import os, sys, threading, pio
        from pio.models.qwen3_0_6b.plugin import Qwen3_0_6BPlugin

        building, go_on = threading.Event(), threading.Event()

        class Slow(Qwen3_0_6BPlugin):
            def build_model(self, *given):
                building.set()
                assert go_on.wait(60)
                return super().build_model(*given)

        loaded, loading = pio.load("demo", threads=1), Slow()
        stream = loaded.stream("x", max_new_tokens=1900, ignore_eos=True)
        next(stream)
        loading.initialize(path="demo", threads=1)
        other = threading.Thread(target=loading.load_model)
        other.start()
        building.wait(60)
        child = os.fork()
        if not child:
            for call in (lambda: list(stream), lambda: loaded.generate("x"), lambda: loading.generate("x")):
                try:
                    call()
                except pio.PioError as error:
                    print(type(error).__name__)
            assert loaded.cleanup() and loading.cleanup()
            print(len(loaded.load_model().generate("x", max_new_tokens=3, ignore_eos=True).token_ids), flush=True)
            sys.exit(0)
        print(os.waitpid(child, 0)[1])
        go_on.set()
        other.join()
        print(loading.is_loaded, len(next(stream)) > 0)
        """
    )
    assert (done.stdout.split(), done.stderr) == (["PioError"] * 3 + ["3", "0", "True", "True"], "")


@needs_fork
def test_a_forked_child_finds_the_compiler_free_where_another_thread_uses_it():
    done = run_python(
        """
        import os, signal, threading, pio
        from pio.kernels import activation, parallel
        from pio.ops import compilation

        loading, forking = threading.Event(), threading.Event()

        def started(kernel):
            loading.set()
            assert forking.wait(60)

        pio.load("demo").cleanup()  # all kernels are in the folder

        def load():
            with compilation.watch(started):
                parallel.make_job(activation.silu.py_func, 1).prepare()

        thread = threading.Thread(target=load)
        thread.start()
        assert loading.wait(60)
        forking.set()
        child = os.fork()
        if not child:
            signal.alarm(30)
            with pio.load("demo") as model:
                print(len(model.generate("x", max_new_tokens=3, ignore_eos=True).token_ids), flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        thread.join()
        """
    )
    assert (done.stdout.split(), done.stderr) == (["3", "0"], "")


@pytest.mark.parametrize("daemon", [True, False])
def test_a_program_ends_while_requests_run(daemon):
    """In a daemon thread and another one, in a generator that is still open; the answers would take minutes."""
    done = run_python(
        f"""
        import contextlib, threading, pio

        model = pio.load("demo")
        started = threading.Event()

        def ask():
            with contextlib.suppress(pio.CancelledError):
                for _ in model.stream("x", max_new_tokens=1900 if {daemon} else 20, ignore_eos=True):
                    started.set()

        def pieces():
            yield from model.stream("y", max_new_tokens=1900, ignore_eos=True)

        open_stream = pieces()
        next(open_stream)
        threading.Thread(target=ask, daemon={daemon}).start()
        started.wait(60)
        print("left")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


@needs_alarm
def test_a_handler_may_clean_up_update_and_ask(model):
    """While the main thread waits for an answer; the thread that runs the model needs nothing that it holds."""
    heard = []

    def handler(*_):
        model.update(prefill_chunk=6)
        stream = model.stream(PROMPT, **ENDLESS)
        next(stream)
        stream.close()
        heard.append(model.generate(PROMPT, max_new_tokens=3, ignore_eos=True).usage.completion_tokens)
        model.cleanup()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(pio.PioError):
            while True:
                model.generate(PROMPT, **ENDLESS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert heard == [3] and not model.is_loaded
