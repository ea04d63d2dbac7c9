"""Compiled kernels on disk: only whole ones are run, and none is lost because something else went wrong."""

import contextlib
import os
import random
import subprocess
import sys

import pytest
from needs import needs_limits, needs_modes, needs_root, on_windows
from windows_access import FOR_EVERYBODY, give

from pio.ops import compilation
from pio.system import HERE

pytestmark = pytest.mark.skipif(not compilation.enabled() or compilation.checked(), reason="nothing is kept")

SILU = """
from pio import ops
from pio.tensor import Tensor

def silu():
    return ops.silu(Tensor.full((3, 5), 0.5)).tolist()[2][4]
"""
RUN = f"{SILU}\nprint(silu())"


def start(folder, script=RUN):
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "PYTHONIOENCODING": "utf-8"}
    environment.pop("NUMBA_CACHE_DIR", None)
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", env=environment)


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
    assert error == "" and len(files(folder)) == 2
    return folder, out


@pytest.fixture
def kept(full, tmp_path):
    """A copy of that folder which a test may spoil."""
    folder, out = full
    (kernels,) = folder.glob("pio/kernels/*")
    copy = tmp_path / kernels.relative_to(folder)
    for made in (tmp_path / "pio", tmp_path / "pio" / "kernels", copy):
        HERE.make_private_folder(made)
    for path, content in files(folder).items():
        (copy / path.name).write_bytes(content)
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
import pathlib, random
from pio.kernels import _image

name = _image.Name("pio.kernels.activation", "silu")
(path,) = pathlib.Path(_image.cache_folder()).glob("*.silu-*")
whole, kept = path.read_bytes(), _image.read(name)
places = {0, 255, *range(8 * _image.DIGEST, 8 * _image.DIGEST + 400, 7), 8 * len(whole) - 1}
places |= set(random.Random(5).sample(range(8 * len(whole)), 200))
for place in sorted(places):
    changed = bytearray(whole)
    changed[place // 8] ^= 1 << place % 8
    path.write_bytes(changed)
    assert _image.read(name) is None
path.write_bytes(whole)
assert _image.read(name) == kept is not None
print(len(places))
"""


def test_a_flipped_bit_anywhere_never_runs(kept):
    out, error = run(kept[0], FLIPS)
    assert int(out) > 200 and error.count("a damaged file") == int(out)


REFUSED = f"""
import os, resource, sys
{SILU}
import numba, pio.kernels.activation
from pio.ops import compilation
assert compilation.cache_folder() is not None
numba.njit(lambda: 1)()  # imports what the compiler needs
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
at_most = os.open("/dev/null", os.O_RDONLY)  # the next one
resource.setrlimit(resource.RLIMIT_NOFILE, (at_most, hard))
print(silu())
"""


@needs_limits
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
{SILU}
from pio.kernels import _engine
real = _engine.load

def fail(*_):
    raise MemoryError

_engine.load = fail
try:
    silu()
except MemoryError:
    _engine.load = real
print(silu())
"""
    out, error = run(folder, script)
    assert (out, error) == (expected, "") and files(folder) == before


@needs_limits
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
    assert all(path.name.endswith(".kernel") for path in files(tmp_path))


def test_an_exception_of_a_signal_handler_while_a_kernel_is_compiled(tmp_path):
    """It ends the call at once, the kernel is complete when it is wanted again, and llvmlite says nothing."""
    script = f"""
import os, signal
{SILU}
from pio.ops import compilation
names = []

def started(name):
    if not names:
        os.kill(os.getpid(), signal.SIGINT) if os.name == "posix" else signal.raise_signal(signal.SIGINT)
    names.append(name)

with compilation.watch(started):
    try:
        silu()
    except KeyboardInterrupt:
        print(silu())
print(sorted(names))
"""
    out, error = run(tmp_path, script)
    assert out == f"{run(tmp_path)[0]}['run', 'silu']\n" and error == ""


@pytest.mark.skipif(os.name != "posix", reason="needs a home folder that a variable names")
def test_without_a_home_nothing_is_written_where_the_process_happens_to_be(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "NUMBA_"))}
    script = "from pio.ops import compilation; print(compilation.cache_folder())"
    command = [sys.executable, "-c", script]
    environment["HOME"] = "relative"
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert list(tmp_path.iterdir()) == []
    assert ran.stdout == "None\n" and "this user has no home folder" in ran.stderr


def test_a_file_of_another_kernel_processor_or_version_is_not_run(kept):
    """Each has its own name, so somebody has put a whole file where another belongs."""
    folder, expected = kept
    run_file, silu_file = sorted(files(folder), key=lambda path: "silu" in path.name)
    silu_file.write_bytes(run_file.read_bytes())
    out, error = run(folder)
    assert out == expected and f"a damaged file of a compiled kernel is made anew: {silu_file}\n" in error
    assert run(folder) == (expected, "")


@needs_modes
def test_a_file_that_others_can_write_is_made_anew(kept):
    folder, expected = kept
    for path in files(folder):
        path.chmod(0o666)
    out, error = run(folder)
    assert out == expected and "can be written by others" in error
    assert run(folder) == (expected, "")


@on_windows
def test_a_file_that_everybody_can_write_is_made_anew(kept):
    folder, expected = kept
    for path in files(folder):
        give(path, FOR_EVERYBODY)
    out, error = run(folder)
    assert out == expected and "can be written by Everyone (S-1-1-0); icacls" in error
    assert run(folder) == (expected, "")


@on_windows
def test_a_folder_that_everybody_can_write_is_not_used(kept):
    folder, expected = kept
    (kernels,) = folder.glob("pio/kernels/*")
    give(kernels, FOR_EVERYBODY)
    out, error = run(folder)
    assert (
        out == expected and f"compiled anew in every process, which costs about 10 s at each start: {kernels}" in error
    )
    assert f'icacls "{kernels}" /inheritance:r /remove:g "*S-1-1-0" /grant:r ' in error


@on_windows
def test_a_damaged_file_that_is_open_elsewhere_costs_speed_only(kept):
    folder, expected = kept
    for path in files(folder):
        path.write_bytes(b"damaged")
    with contextlib.ExitStack() as stack:
        for path in files(folder):
            stack.enter_context(open(path, "rb"))
        out, error = run(folder)
    assert out == expected and error.count("cannot be kept") == error.count("or this one, has it open; close it") == 2
    assert all(path.suffix == ".kernel" for path in files(folder))


def test_a_profile_beyond_ascii(tmp_path):
    folder = tmp_path / "Jürgen Ω 名"
    cold, warm = run(folder), run(folder)
    assert cold == warm and cold[1] == "" and len(files(folder)) == 2


@needs_root
def test_a_file_of_another_user_is_made_anew(kept):
    folder, expected = kept
    for path in files(folder):
        os.chown(path, 12345, -1)
    out, error = run(folder)
    assert out == expected and "belongs to user id 12345" in error
    assert run(folder) == (expected, "")


RAISES = """
from pio.ops.kernels import kernel, parallel_kernel

@kernel
def bad(n: int, x: float) -> float:
    if n > 3:
        raise ValueError("too many")
    return n + x

@kernel
def more(n: int) -> bool:
    return n > 3

@parallel_kernel
def steps(n: int, part: int, parts: int) -> None:
    for _ in range(0, 10, n):
        pass

print(bad(3, 0.5), bad(4, 0.5), more(3), more(4))
steps(2, 1)
steps(0, 1)
"""


def test_a_kernel_that_raises_says_so(tmp_path):
    """What it computes is wrong; a job has nobody to raise to."""
    out, error = run(tmp_path, RAISES)
    assert out == "3.5 0.0 False True\n"
    assert [line.partition("kernel pio_")[2][:5] for line in error.splitlines()] == ["bad_1", "steps"]
    assert error.count("raised an exception, which goes no further; what it computed is wrong\n") == 2


PYTHON = """
from pio.ops.kernels import kernel

@kernel
def factorial(n: int) -> int:
    if n < 2:
        return 1
    return n * factorial(n - 1)

@kernel
def longest(n: int) -> int:
    numbers = [1, 2]
    for i in range(n):
        numbers.append(i)
    return len(numbers)

@kernel
def shown(n: int) -> None:
    print(n)

print(factorial(5), longest(5))
try:
    shown(5)
except TypeError as error:
    print(str(error).partition(" (")[0])
"""


def test_what_kernels_of_others_may_need(tmp_path):
    out, error = run(tmp_path, PYTHON)
    assert out == "120 7\nkernel shown needs Python\n"
    assert error.startswith("kernel longest calls NRT_") and error.endswith("it is compiled anew in every process\n")


WARM = """
import sys
import pio
with pio.load("demo") as model:
    print(model.generate("def f", max_new_tokens=3, seed=5, temperature=0.8, top_p=0.9).text)
print([name for name in ("llvmlite.binding", "numba", "numpy") if name in sys.modules])
"""


def test_a_process_that_answers_imports_no_compiler(tmp_path):
    """Not even the first one: others compile what it needs."""
    cold, warm = run(tmp_path, WARM), run(tmp_path, WARM)
    assert cold == warm
    assert warm[0].splitlines()[-1] == ("[]" if HERE.places_objects else "['llvmlite.binding']") and warm[1] == ""


def test_the_switches_that_nobody_has_set_are_numbas_own():
    script = """
from numba.core import config
from pio.kernels import _settings
for name, value in _settings.DEFAULTS.items():
    assert getattr(config, name) == value, name
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
