"""Compiled kernels on disk: only whole ones are run, and none is lost because something else went wrong."""

import os
import random
import subprocess
import sys

import pytest

from pio.ops import compilation

pytestmark = pytest.mark.skipif(not compilation.enabled() or compilation.checked(), reason="nothing is kept")

SILU = """
from pio import ops
from pio.tensor import Tensor

def silu():
    return ops.silu(Tensor.full((3, 5), 0.5)).tolist()[2][4]
"""
RUN = f"{SILU}\nprint(silu())"


def start(folder, script=RUN):
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(folder, script=RUN):
    process = start(folder, script)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out, error


def files(folder):
    """What is in the folder of compiled kernels."""
    (kernels,) = folder.glob("pio/kernels/*")
    return {path: path.read_bytes() for path in sorted(kernels.iterdir())}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A folder with the kernels of RUN, and what it prints."""
    folder = tmp_path_factory.mktemp("kernels")
    out, error = run(folder)
    assert error == "" and len(files(folder)) > 2
    return folder, out


@pytest.fixture
def kept(full, tmp_path):
    """A copy of that folder which a test may spoil."""
    folder, out = full
    (kernels,) = folder.glob("pio/kernels/*")
    copy = tmp_path / kernels.relative_to(folder)
    copy.mkdir(parents=True)
    for path, content in files(folder).items():
        (copy / path.name).write_bytes(content)
    for made in (tmp_path / "pio" / "kernels", copy):
        made.chmod(0o700)
    return tmp_path, out


def flip(content, seed):
    at = random.Random(seed).randrange(8 * len(content))
    changed = bytearray(content)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda content: content[:-1], lambda content: content + b"\0", lambda content: flip(content, 3)],
    ids=["empty", "cut short", "too long", "a bit"],
)
def test_damaged_files_are_made_anew(kept, damage):
    folder, expected = kept
    before = files(folder)
    for path, content in before.items():
        path.write_bytes(damage(content))
    out, error = run(folder)
    assert out == expected and error.count("a damaged file") == error.count("\n") > 0
    assert run(folder) == (expected, "")
    assert files(folder).keys() == before.keys()


FLIPS = """
import pathlib, random, sys
from pio.kernels import _jit, _kept, gather

def answer():
    kernel = _jit.kernel(gather.first_outside.py_func)  # a new one, which has to be loaded
    return kernel(0, 0, 1, 5)  # there are no indices

expected = answer()
(path,) = pathlib.Path(_kept.cache_folder()).glob("*first_outside-*")
whole = path.read_bytes()
places = {0, 255, *range(8 * _kept.DIGEST, 8 * _kept.DIGEST + 40, 7), 8 * len(whole) - 1}
places |= set(random.Random(5).sample(range(8 * len(whole)), 25))
for place in sorted(places):
    changed = bytearray(whole)
    changed[place // 8] ^= 1 << place % 8
    path.write_bytes(changed)
    assert answer() == expected
    assert len(path.read_bytes()) == len(whole) or path.read_bytes() != bytes(changed)
    path.write_bytes(whole)
print(len(places))
"""


def test_a_flipped_bit_anywhere_never_runs(kept):
    out, error = run(kept[0], FLIPS)
    assert int(out) > 30 and error.count("a damaged file") == int(out)


REFUSED = f"""
import os, resource, sys
{SILU}
import pio.kernels.activation
import numba
numba.njit(lambda: 1)()  # imports what the compiler needs
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
at_most = os.open("/dev/null", os.O_RDONLY)  # the next one
resource.setrlimit(resource.RLIMIT_NOFILE, (at_most, hard))
print(silu())
"""


def test_files_that_cannot_be_read_now_stay(kept):
    folder, expected = kept
    before = files(folder)
    out, error = run(folder, REFUSED)
    assert out == expected and error.count("cannot be read") == 1 and "a damaged file" not in error
    assert files(folder) == before


def test_an_error_that_has_nothing_to_do_with_a_file_deletes_none(kept):
    folder, expected = kept
    before = files(folder)
    script = f"""
import pickle
{SILU}
real = pickle.loads

def fail(*_):
    raise MemoryError

pickle.loads = fail
try:
    silu()
except MemoryError:
    pickle.loads = real
print(silu())
"""
    out, error = run(folder, script)
    assert (out, error) == (expected, "") and files(folder) == before


def test_a_full_disk_costs_speed_only(tmp_path):
    script = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))\n{RUN}"
    out, error = run(tmp_path, script)
    assert float(out) == pytest.approx(0.3112296) and "cannot be kept" in error
    assert files(tmp_path) == {}


def test_processes_that_fill_a_folder_at_once(tmp_path):
    processes = [start(tmp_path) for _ in range(3)]
    found = {process.communicate(timeout=300) for process in processes}
    assert len(found) == 1 and next(iter(found))[1] == ""
    assert run(tmp_path) == next(iter(found))
    assert all(path.name.endswith(".nbc") for path in files(tmp_path))


def test_an_exception_of_a_signal_handler_while_a_kernel_is_compiled(tmp_path):
    """It ends the call at once, the kernel is complete when it is wanted again, and llvmlite says nothing."""
    script = f"""
import os, signal
{SILU}
from pio.ops import compilation
names = []

def started(name):
    if not names:
        os.kill(os.getpid(), signal.SIGINT)
    names.append(name)

with compilation.watch(started):
    try:
        silu()
    except KeyboardInterrupt:
        print(silu())
print(len(names) == len(set(names)) > 2)
"""
    out, error = run(tmp_path, script)
    assert out == f"{run(tmp_path)[0]}True\n" and error == ""


def test_without_a_home_nothing_is_written_where_the_process_happens_to_be(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "NUMBA_"))}
    script = "from pio.ops import compilation; print(compilation.cache_folder())"
    command = [sys.executable, "-c", script]
    environment["HOME"] = "relative"
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert list(tmp_path.iterdir()) == []
    assert ran.stdout == "None\n" and "this user has no home folder" in ran.stderr
