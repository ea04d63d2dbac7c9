"""Kernels that other processes compile: all that a model needs, whatever happens to those processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from needs import needs_limits, needs_modes, needs_scripts, needs_symlinks, on_windows
from processes import Program

import pio
from pio.kernels import _compilers, _linears, attention, gather, linear, norm, sampling, top_k
from pio.kernels._image import Name
from pio.kernels._source import find
from pio.ops import compilation

pytestmark = pytest.mark.skipif(not compilation.enabled() or compilation.checked(), reason="nothing is handed over")

ROOT = Path(pio.__file__).parent.parent
LOAD = """
import json, logging, sys
logging.basicConfig(format="%(message)s", level=logging.WARNING)
import threading
import pio
from pio.ops import compilation
here = []

def started(name):
    if "(work)" not in threading.current_thread().name:  # such a thread tells what another process does
        here.append(name)

with compilation.watch(started):
    with pio.load("demo") as model:
        loaded = len(here)
        text = model.generate("def add(a, b):", max_new_tokens=8, seed=3, temperature=0.7, top_p=0.9).text
print(json.dumps([text, loaded, len(here)]))
"""


def start(folder, script=LOAD, *flags):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, *flags, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(folder, script=LOAD, *flags):
    process = start(folder, script, *flags)
    out, error = process.communicate()
    assert process.returncode == 0, error
    return *json.loads(out), error


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A folder of kernels filled by the first load ever, and what that gave."""
    folder = tmp_path_factory.mktemp("kernels")
    return folder, run(folder)


@pytest.mark.parametrize(
    "kernel",
    [_linears.linears["float16"], linear.linear_columns["float32"], norm.layer_norm["bfloat16"], top_k.top_k],
    ids=["parallel", "serial of a type", "another file", "serial"],
)
def test_an_order_finds_its_kernel(kernel):
    assert find(Name(*json.loads(json.dumps(kernel.source.name)))) is kernel


@pytest.mark.parametrize("name", compilation.LONGEST)
def test_what_is_said_to_take_long_is_a_kernel(name):
    assert [path for path in (ROOT / "pio" / "kernels").rglob("*.py") if f"\ndef {name}(" in path.read_text("utf-8")]


def test_what_takes_longest_begins_first(monkeypatch):
    orders = []
    monkeypatch.setattr(_compilers, "compile_missing", lambda kernels, *_: orders.extend(kernels))
    few = [sampling.sample, gather.gather["float32"], _linears.linears["float16"], attention.attention["float32"]]
    compilation.compile_missing(few)
    names = [order.source.name.name for order in orders]
    assert names[:4] == ["attention", "sample", "linears", "gather"] and len(names) == 4 + len(compilation.SERIAL)


def test_an_order_names_what_numba_compiles():
    assert gather.first_outside.source.name == ("pio.kernels.gather", "first_outside", "")


def test_a_first_load_compiles_nothing_itself_and_the_next_finds_all(cold):
    folder, (text, loaded, total, error) = cold
    assert loaded == 0 and error == ""
    assert total == 0  # and no token waits for the compiler
    assert run(folder) == (text, 0, 0, "")


FEW = """
import json, logging, subprocess, sys, threading
logging.basicConfig(format="%(message)s", level=logging.WARNING)
from pio.kernels import _compilers, activation
from pio import ops
from pio.tensor import Tensor
real = sys.executable
{before}
_compilers.compile_missing([activation.silu], 2)
{after}
print(json.dumps([ops.silu(Tensor.full((3, 5), 0.5)).tolist()[2][4], threading.active_count()]))
"""
SILU = 0.3112296760082245


def few(folder, before, after=""):
    """Have some kernels compiled after some code has been run; return what the process says on standard error."""
    value, threads, error = run(folder, FEW.format(before=before, after=after))
    assert value == SILU and threads <= 2
    return error


@needs_scripts
@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("#!/bin/sh\nexit 3\n", "ended early"),
        ("#!/bin/sh\nexec sleep 1000\n", "it said nothing for 0.3 s"),
        ("#!/bin/sh\necho; exec sleep 1000\n", "it is not Python"),
        ("#!/bin/sh\nexec yes\n", "it is not Python"),
        ("#!/nowhere/at/all\n", "cannot be started"),
        ("", "cannot be started"),
        (None, "cannot be started"),
    ],
    ids=["ends", "hangs", "says something", "talks", "needs what is not there", "is no program", "is not there"],
)
def test_a_program_that_is_not_python_costs_speed_only(tmp_path, content, word):
    program = tmp_path / "python3"
    if content is not None:
        program.write_text(content)
        program.chmod(0o755)
    error = few(tmp_path, f"sys.executable = {str(program)!r}\n_compilers.BEGIN_LIMIT = 0.3")
    assert word in error and "Traceback" not in error


@needs_scripts
@pytest.mark.parametrize("name", ["myapp", "pythonista", "python3-config", "uwsgi", "python.bin"])
def test_a_program_that_has_python_inside_is_not_started_again(tmp_path, name):
    program = tmp_path / name
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    assert few(tmp_path, f"sys.executable = {str(program)!r}") == ""
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("setting", ["executable = None", "executable = ''", "frozen = True", "executable = b'python'"])
def test_where_there_is_no_program_none_is_started(tmp_path, setting):
    assert few(tmp_path, f"sys.{setting}\nsubprocess.Popen = None") == ""


@needs_symlinks
@pytest.mark.parametrize(
    "name", ["python", "python3", "python3.13", "python3.13t", "pypy3.11", "Python", "python3-dbg"]
)
def test_interpreters_go_by_many_names(tmp_path, name):
    (tmp_path / name).symlink_to(sys.executable)
    after = "assert activation.silu.source.is_kept()"
    assert few(tmp_path, f"sys.executable = {str(tmp_path / name)!r}", after) == ""


def test_the_path_of_modules_may_hold_anything(tmp_path):
    after = "assert activation.silu.source.is_kept()"
    before = "import pathlib\nsys.path += [pathlib.Path('/nowhere'), '\\udcff']"
    assert few(tmp_path, before, after) == ""


@pytest.mark.parametrize("flags", [("-OO",), ("-W", "error"), ("-I",)], ids=" ".join)
def test_other_ways_to_run_python(tmp_path, flags):
    script = f"import sys\nsys.path[:] = {[str(ROOT), *sys.path]!r}\n{FEW}"
    ran = script.format(before="", after="assert activation.silu.source.is_kept()")
    assert run(tmp_path, ran, *flags) == (SILU, 1, "")


@needs_limits
def test_a_process_that_the_system_refuses_costs_speed_only(tmp_path):
    before = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (4, hard))"""
    error = few(tmp_path, before, "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))")
    assert "a compiler process cannot be started; kernels are compiled in this process" in error


def test_a_thread_that_the_system_refuses_costs_speed_only(tmp_path):
    before = """
start = threading.Thread.start
def refuse(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse"""
    error = few(tmp_path, before, "threading.Thread.start = start")
    assert "a compiler process cannot be started; kernels are compiled in this process" in error


@pytest.mark.skipif(shutil.which("chattr") is None, reason="makes a folder read-only also for root")
def test_kernels_of_a_read_only_folder_are_used(cold, tmp_path):
    kernels = tmp_path / "image"
    shutil.copytree(cold[0], kernels)
    for folder in kernels.glob("pio/kernels/*"):
        for removed in list(folder.glob("*swiglu*")):
            os.remove(removed)
    (folder,) = kernels.glob("pio/kernels/*")
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode:
        pytest.skip("chattr may not be used here")
    try:
        text, loaded, _, error = run(kernels)
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
    assert text == cold[1][0]
    assert 0 < loaded < 6 and error.count("cannot be written") == 1


@needs_modes
def test_a_folder_that_others_can_write_is_not_trusted(cold, tmp_path):
    kernels = tmp_path / "shared"
    shutil.copytree(cold[0], kernels)
    (folder,) = kernels.glob("pio/kernels/*")
    folder.chmod(0o777)
    script = "import sys\nfrom pio.ops import compilation\nimport json\nprint(json.dumps([compilation.cache_folder()]))"
    nothing, error = run(kernels, script)
    assert nothing is None and "can be written by others" in error


LEFT = """
import json, subprocess
from pio.ops import compilation
import pio

children = []

class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        children.append(self)

subprocess.Popen = Popen
try:
    with compilation.watch(lambda name: print(name, flush=True)):
        pio.load("demo")
except KeyboardInterrupt:
    print(json.dumps(["interrupted", len(children) > 0, [child.poll() for child in children].count(None)]), flush=True)
"""


def test_what_a_process_says_is_understood_whatever_its_encoding(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    child = _compilers._Child(sys.executable, str(tmp_path))
    try:
        child.work(deque([Name("Jürgen_Ω", "none")]))  # there is no such module, and the error has its name
    finally:
        child.end()
    assert "could not compile none; it is compiled here: ModuleNotFoundError: No module named 'Jürgen_Ω'" in caplog.text


def test_ctrl_c_ends_a_first_load_at_once(tmp_path):
    program = Program(LEFT, kind="-c", env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    while program.process.stdout.readline().strip() != b"linears_bfloat16":
        pass
    program.send(signal.SIGINT)
    said = program.process.stdout.read()
    assert program.end() == (0, b"")
    assert json.loads(said.splitlines()[-1]) == ["interrupted", True, 0]  # no child is left


SILENT = """
import json, sys
if sys.argv[2:]:
    sys.stdin = sys.stdout = sys.stderr = None
import pio
from pio.ops import compilation
with pio.load("demo", progress=True) as model:
    text = model.generate("def add(a, b):", max_new_tokens=8, seed=3, temperature=0.7, top_p=0.9).text
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump([text, sys.stdout is sys.stderr is None, compilation.cache_size()[0]], file)
"""


@pytest.mark.parametrize("windowed", [False, pytest.param(True, marks=on_windows)])
def test_a_program_without_streams(cold, tmp_path, windowed):
    command = [sys.executable, "-c", SILENT, str(tmp_path / "said"), "none"]
    options = {}
    if windowed:  # an interpreter that has none by itself
        command = [str(Path(sys.executable).with_name("pythonw.exe")), *command[1:-1]]
        options = {"creationflags": subprocess.DETACHED_PROCESS}
    subprocess.run(command, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}, check=True, **options)
    text, none, kept = json.loads((tmp_path / "said").read_text("utf-8"))
    assert text == cold[1][0] and none and kept > 10
