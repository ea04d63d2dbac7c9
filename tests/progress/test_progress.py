import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numba
import pytest
from needs import needs_terminals

import pio
from pio.loading.hub_cache import short_name
from pio.machine import cpu_count
from pio.ops import compilation
from pio.ops.kernels import kernel
from pio.progress.progress import Progress

compiles = pytest.mark.skipif(not compilation.enabled() or compilation.checked(), reason="nothing is compiled")


class Terminal:
    """A pseudo-terminal: what is written to ``stream`` is what ``written`` returns."""

    def __init__(self) -> None:
        import pty  # which not every system has
        import tty

        self._reader, writer = pty.openpty()
        tty.setraw(writer)
        self.stream = open(writer, "w", encoding="utf-8")
        self._seen = b""
        self._thread = threading.Thread(target=self._read)  # a terminal that nobody reads fills up
        self._thread.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._reader, 65536):
                self._seen += piece
        except OSError:  # how Linux says that the other end is closed
            pass

    def written(self) -> str:
        self.stream.close()
        self._thread.join()
        os.close(self._reader)
        return self._seen.decode("utf-8")


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def compile_one(module: str, name: str) -> None:
    """Compile a kernel that says it is of some module."""

    def function(x: int) -> int:
        return x + 1

    function.__module__, function.__name__ = module, name
    assert kernel(function)(5) == 6


@needs_terminals
@pytest.mark.parametrize("wanted", [True, None])
def test_a_terminal_shows_it_and_is_left_clean(wanted):
    terminal = Terminal()
    with Progress(wanted, "loading a model", delay=0.0, stream=terminal.stream) as progress:
        if progress._timer is not None:
            progress._timer.join()
        progress.say("reading", ": tensor 7")
    seen = terminal.written()
    assert "loading a model" in seen and "reading: tensor 7" in seen
    assert seen.endswith("\x1b[2K")  # the line is erased, and nothing is written behind it


@needs_terminals
def test_quick_work_shows_nothing():
    terminal = Terminal()
    with Progress(None, "loading", delay=3600.0, stream=terminal.stream):
        pass
    assert terminal.written() == ""


@needs_terminals
def test_switched_off_it_shows_nothing():
    terminal = Terminal()
    with Progress(False, "loading", delay=0.0, stream=terminal.stream):
        pass
    assert terminal.written() == ""


def test_elsewhere_it_is_off_unless_asked_for():
    silent, asked = io.StringIO(), io.StringIO()
    with Progress(None, "loading", delay=0.0, stream=silent) as progress:
        assert progress._timer is None
        progress.say("reading")
    with Progress(True, "loading", stream=asked) as progress:
        progress.say("reading", ": 1")
        progress.say("reading", ": 2")
        progress.say("mapping")
    assert (silent.getvalue(), asked.getvalue()) == ("", "loading\nreading\nmapping\n")


def test_one_at_a_time():
    outer, inner, later = io.StringIO(), io.StringIO(), io.StringIO()
    with Progress(True, "outer", stream=outer), Progress(True, "inner", stream=inner):
        pass
    with Progress(True, "later", stream=later):
        pass
    assert (outer.getvalue(), inner.getvalue(), later.getvalue()) == ("outer\n", "", "later\n")


def test_an_error_ends_it():
    stream = io.StringIO()
    with pytest.raises(ValueError, match="no"), Progress(True, "failing", stream=stream):
        raise ValueError("no")
    with Progress(True, "after", stream=stream):
        pass
    assert stream.getvalue() == "failing\nafter\n"


@needs_terminals
@compiles
def test_compiled_kernels_are_named_and_counted_and_others_are_not(caplog):
    caplog.set_level("INFO", "pio")
    terminal = Terminal()
    with Progress(True, "loading", stream=terminal.stream) as progress:
        compile_one("pio.kernels.anything", "first_kernel")
        numba.njit(lambda x: x + 1)(5)  # somebody else's
        compile_one("pio.kernels.anything", "second_kernel")
    compile_one("pio.kernels.anything", "third_kernel")
    seen = terminal.written()
    assert "compiling kernels for this machine (once): first_kernel (1)" in seen
    assert "second_kernel (2)" in seen and "third_kernel" not in seen
    assert progress.compiled == 2
    assert [r.getMessage() for r in caplog.records] == ["compiling first_kernel", "compiling second_kernel"]


@needs_terminals
@pytest.mark.parametrize("columns", [24, 40, 80, 200])
def test_a_line_has_a_total_and_fits(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    with Progress(True, "loading", stream=terminal.stream) as progress:
        progress.say("packing", ": " + "a_long_name." * 20, done=12, total=57)
        progress.say("writing", ": " + "a_long_name." * 20, done=123_456_789, total=987_654_321)
        note = progress.counting("counting", lambda: 3)
        note("one")
        note("two")
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]+", terminal.written())]
    assert all(len(line) <= columns for line in plain)
    shown = "\n".join(plain)
    assert "12/57 packing" in shown and "12/100 writing" in shown and "2/3 counting" in shown
    if columns >= 80:
        assert "2/3 counting: two" in shown


def test_models_are_called_by_their_names():
    assert short_name("/a/b/demo-int4") == "demo-int4" and short_name(Path("x") / "demo") == "demo"
    assert short_name("/hub/models--Qwen--Qwen3-0.6B/snapshots/0123abcd") == "Qwen/Qwen3-0.6B"


def test_the_api_switches_it(capsys):
    with pio.load("demo", progress=True) as model:
        assert model.runtime.progress is True
    assert capsys.readouterr().err.startswith("loading ")
    with pio.load("demo"):
        pass
    assert capsys.readouterr() == ("", "")


@needs_terminals
@compiles
def test_a_first_run_shows_progress_and_then_nothing_but_text(tmp_path):
    terminal = Terminal()
    code = "import pio; print(pio.load('demo', progress=True).generate_text('x', max_new_tokens=4, seed=1))"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("NUMBA_CACHE_DIR", None)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=terminal.stream,
        cwd=Path(pio.__file__).parent.parent,
        check=True,
    )
    with pio.load("demo") as model:
        assert ran.stdout.decode() == model.generate_text("x", max_new_tokens=4, seed=1) + "\n"
    seen = terminal.written()
    counts = [
        (int(n), int(total))
        for n, total in re.findall(r"(\d+)/(\d+) compiling kernels for this machine \(once\)", seen)
    ]
    assert counts == sorted(counts) and len({total for _, total in counts}) == 1
    assert counts[0][0] <= 2 * cpu_count() and counts[-1][0] == counts[-1][1] > 10
    assert seen.endswith("\x1b[2K")


class Sink:
    """What a host program may have put in the place of standard error: it has these two methods alone."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


class Broken(Sink):
    """One whose every method raises."""

    encoding = None

    def __init__(self, error, terminal):
        super().__init__()
        self._error, self._terminal = error, terminal

    def write(self, text):
        raise self._error

    flush = closed = property(write)

    def isatty(self):
        if self._terminal:
            return True
        raise self._error


class Narrow(io.StringIO):
    """A terminal that knows no character beyond ASCII."""

    encoding = "ascii"

    def isatty(self):
        return True

    def write(self, text):
        return super().write(text.encode("ascii").decode())


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


ERRORS = (BrokenPipeError(32, "broken pipe"), ValueError("closed"), OSError(5, "no terminal"), AttributeError("none"))
STREAMS = [
    pytest.param(lambda: None, id="none"),
    pytest.param(Sink, id="two methods"),
    pytest.param(object, id="no method"),
    pytest.param(closed, id="closed"),
    pytest.param(Narrow, id="narrow"),
    *(
        pytest.param(lambda e=e, t=t: Broken(e, t), id=f"{type(e).__name__}, {'' if t else 'no '}terminal")
        for e in ERRORS
        for t in (True, False)
    ),
]


@pytest.mark.parametrize("wanted", [True, None])
@pytest.mark.parametrize("make", STREAMS)
def test_what_cannot_be_shown_is_no_error(monkeypatch, make, wanted):
    monkeypatch.setattr(sys, "stderr", make())
    with Progress(wanted, "loading ½", delay=0.0) as progress:
        if progress._timer is not None:
            progress._timer.join()
        progress.say("reading", ": tensor ⅞")
    plain = io.StringIO()
    with Progress(True, "later", stream=plain):  # and it stands in nobody's way
        pass
    assert plain.getvalue() == "later\n"


def test_any_object_that_can_be_written_to_shows_it(monkeypatch):
    monkeypatch.setattr(sys, "stderr", sink := Sink())
    with pio.load("demo", progress=True):
        pass
    assert sink.text.startswith("loading ")


def test_a_thread_that_the_system_refuses_is_no_error(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for wanted in (True, None):
        terminal = Narrow()
        with Progress(wanted, "loading", delay=0.0, stream=terminal) as progress:
            progress.say("reading")
