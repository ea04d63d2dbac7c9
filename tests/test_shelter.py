"""Imports and compilations that exceptions of signal handlers do not leave half done."""

import signal
import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest
from own_signals import CODE, USUAL, send

import pio
from pio.shelter import import_whole, sheltered

VARIABLE = ContextVar("VARIABLE", default=0)


class Alarm(Exception):
    """What a host program raises when its time is up."""


class Refusal(RuntimeError):
    """As the system's, where it refuses a thread."""


@pytest.fixture(params=[KeyboardInterrupt, SystemExit, Alarm, Refusal])
def raised(request):
    """An exception that the handler of a signal raises meanwhile."""

    def handler(*_):
        raise request.param

    before = signal.signal(USUAL, handler)
    yield request.param
    signal.signal(USUAL, before)


def test_results_and_errors_come_through():
    assert sheltered(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        sheltered(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        sheltered(sys.exit)
    assert sheltered(lambda: sheltered(threading.current_thread)) is not threading.main_thread()


def test_the_context_is_that_of_the_caller():
    token = VARIABLE.set(3)
    assert sheltered(VARIABLE.get) == 3
    VARIABLE.reset(token)


def test_another_thread_does_its_work_itself():
    found = []
    thread = threading.Thread(target=lambda: found.append(sheltered(threading.current_thread)))
    thread.start()
    thread.join()
    assert found == [thread]


def test_where_the_system_refuses_a_thread_the_caller_does_it(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert sheltered(threading.current_thread) is threading.main_thread()


def test_an_exception_that_comes_as_a_thread_begins_is_the_one_that_is_raised(monkeypatch):
    """Where it interrupts the wait for that, Python raises an error about a lock that it did not get back."""
    start, done = threading.Thread.start, threading.Event()

    def interrupted(thread):
        start(thread)
        try:
            raise KeyboardInterrupt
        finally:
            threading.Lock().release()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sheltered(done.set)
    assert done.wait(60)


def test_an_exception_of_a_signal_handler_ends_the_waiting_and_not_the_work(raised):
    go_on, done = threading.Event(), threading.Event()

    def work():
        send(USUAL)
        assert go_on.wait(60)
        done.set()

    with pytest.raises(raised):
        sheltered(work)
    assert not done.is_set()
    go_on.set()
    assert done.wait(60)


def test_an_import_that_is_interrupted_is_complete_when_it_is_wanted_again(raised, tmp_path, monkeypatch):
    """The module can be made only once in a process, as those of some packages can."""
    name = f"made_once_{raised.__name__}"
    (tmp_path / f"{name}.py").write_text(
        f"{CODE}\n"
        "import sys\n"
        "assert not hasattr(sys, __name__), 'made twice'\n"
        "setattr(sys, __name__, True)\n"
        "send(USUAL)\n"
        "sys.go_on.wait(60)\n"
        "answer = 42\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "go_on", threading.Event(), raising=False)
    with pytest.raises(raised):
        import_whole(name)
    threading.Timer(0.01, sys.go_on.set).start()
    assert import_whole(name).answer == 42
    assert import_whole(name) is sys.modules[name]


LEFT = (
    f"{CODE}\n"
    + """
import threading
from pio.shelter import sheltered

class Alarm(Exception):
    pass

def handler(*_):
    raise Alarm

def work():
    send(USUAL)
    while threading.main_thread().is_alive():  # until the interpreter leaves
        pass
    sum(range(10**6))
    print("complete")

signal.signal(USUAL, handler)
try:
    sheltered(work)
except Alarm:
    print("left", flush=True)
"""
)


def test_work_that_is_left_is_complete_when_the_process_ends():
    ran = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("left\ncomplete\n", "")


INTERRUPTED = (
    f"{CODE}\n"
    + """
import sys

class Alarm(Exception):
    pass

kind = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit, "Alarm": Alarm}[sys.argv[1]]

def handler(*_):
    raise kind

signal.signal(USUAL, handler)

class Finder:
    def find_spec(self, name, *_):
        if name == sys.argv[2]:
            sys.meta_path.remove(self)
            send(USUAL)

import pio
sys.meta_path.insert(0, Finder())
ask = [{"role": "user", "content": "x"}]
try:
    if sys.argv[2].startswith(("num", "pio.kernels")):  # which are imported where a kernel is to be compiled
        from pio.kernels._source import Name, find
        find(Name("pio.kernels.activation", "silu"))
    if sys.argv[2].startswith("llvmlite"):  # which is where kernels cannot be loaded without it
        from pio.forks import llvm
        llvm()
    pio.load("demo").apply_chat_template(ask)
    print("not interrupted")
except kind:
    pass
print(pio.load("demo").generate(ask, max_new_tokens=2, temperature=0).token_ids)
"""
)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("pydantic", "Alarm"),
        ("pydantic_core._pydantic_core", "KeyboardInterrupt"),
        ("numpy.linalg", "KeyboardInterrupt"),
        ("numba.core.caching", "SystemExit"),
        ("llvmlite.binding.value", "Alarm"),
        ("pio.kernels.simd", "KeyboardInterrupt"),
        ("pio.plugin", "Alarm"),
        ("tokenizers.tokenizers", "KeyboardInterrupt"),
        ("tokenizers.decoders", "Alarm"),
        ("jinja2.filters", "KeyboardInterrupt"),
    ],
)
def test_a_first_load_that_is_interrupted_and_the_next(module, kind):
    ran = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, kind, module], capture_output=True, text=True, check=True, timeout=300
    )
    with pio.load("demo") as model:
        answer = model.generate([{"role": "user", "content": "x"}], max_new_tokens=2, temperature=0)
        assert ran.stdout == f"{answer.token_ids}\n"
    assert ran.stderr == ""
