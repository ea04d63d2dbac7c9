import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from needs import needs_scripts, needs_wide_names, on_windows

import pio as package
from pio.cli.streams import Output, OutputError, prepare_streams, require_text
from pio.errors import ConfigError
from pio.loading.checkpoint import resolve
from pio.system import HERE

FOLDER = Path(package.__file__).parent
FULL = Path("/dev/full")
WRITING = [
    ("generate", "demo", "x", "-n", "3"),
    ("generate", "demo", "x", "-n", "3", "--json"),
    ("chat", "-n", "3"),
    ("models",),
    ("doctor",),
    ("generate", "--help"),
    ("--version",),
]


def run(
    *arguments: str, encoding: str = "utf-8", environment: dict[str, str] | None = None, **streams: object
) -> "subprocess.CompletedProcess[bytes]":
    streams = {"input": b"Hi\n", "stderr": subprocess.PIPE, **streams}
    environment = environment or {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run([sys.executable, "-m", "pio", *arguments], cwd=FOLDER, env=environment, **streams)


def shell(line: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["sh", "-c", f'"$0" -m pio {line}', sys.executable], cwd=FOLDER, capture_output=True)


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_a_full_disk_is_one_line(arguments):
    with FULL.open("wb") as full:
        ran = run(*arguments, stdout=full)
    expected = b"error: standard output cannot be written: No space left on device; write it elsewhere\n"
    assert (ran.returncode, ran.stderr) == (1, expected)


@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_a_reader_that_left_is_no_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = run(*arguments, stdout=writing)
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_a_reader_that_leaves_in_the_middle_is_no_error():
    command = [sys.executable, "-m", "pio", "generate", "demo", "x", "--ignore-eos"]
    ran = subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ran.stdout and ran.stderr
    assert os.read(ran.stdout.fileno(), 1)
    ran.stdout.close()
    assert ran.stderr.read() == b""
    assert ran.wait() == 141
    ran.stderr.close()


@needs_scripts
def test_closed_streams():
    ran = shell("generate demo x -n 3 >&-")
    assert (ran.returncode, ran.stderr.count(b"\n")) == (1, 1)
    assert ran.stderr.startswith(b"error: standard output is closed")
    ran = shell("generate demo - <&-")
    assert ran.returncode == 1 and ran.stderr.startswith(b"error: prompt: ")
    ran = shell("chat <&-")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert shell("generate demo x -n 3 --stats 2>&-").returncode == 0


@pytest.mark.parametrize("lacking", ["stdout", "stderr", "stdin, stdout, stderr"])
def test_streams_that_are_not_there(lacking):
    """As programs without a console have them on Windows."""
    none = " = ".join(f"sys.{name}" for name in lacking.split(", "))
    code = f"import sys; {none} = None; from pio.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "generate", "demo", "x", "-n", "3", "--stats"], capture_output=True
    )
    if "stdout" in lacking:
        assert (ran.returncode, ran.stdout) == (1, b"")
        said = f"error: standard output is closed; open it, or send it to {os.devnull}\n"
        assert ran.stderr.decode() == ("" if "stderr" in lacking else said)
    else:
        assert ran.returncode == 0 and ran.stdout and ran.stderr == b""


def test_an_input_without_a_descriptor_is_read(monkeypatch):
    """As a program has it that gives its own text to a command."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x = "), "utf-8"))
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", io.StringIO())
    prepare_streams()
    assert sys.stdin.read() == "x = "


class Refused(io.RawIOBase):
    """A stream that takes nothing."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def writable(self):
        return True

    def fileno(self):
        return self.descriptor

    def write(self, data):
        raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize(("closed", "code"), [(True, 141), (False, 1)])
def test_whether_the_reader_has_gone_is_asked_of_what_was_written_to(monkeypatch, tmp_path, closed, code):
    asked = []

    def is_closed_pipe(error, descriptor):
        asked.append((error.errno, os.path.samestat(os.fstat(descriptor), os.stat(tmp_path / "out"))))
        return closed

    monkeypatch.setattr(HERE, "is_closed_pipe", is_closed_pipe)
    with open(tmp_path / "out", "wb") as file:
        output = Output(io.BufferedWriter(Refused(file.fileno())), "utf-8")
        with pytest.raises(OutputError) as found:
            output.write("x")
            output.flush()
        monkeypatch.setattr(Refused, "write", lambda _, data: len(data))
        output.detach()
    assert asked == [(errno.EINVAL, True)] and found.value.exit_code == code


@on_windows
def test_an_invalid_argument_is_a_closed_pipe_where_it_is_a_pipe(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    invalid, full = OSError(errno.EINVAL, "Invalid argument"), OSError(errno.ENOSPC, "No space left on device")
    assert HERE.is_closed_pipe(invalid, writing) and not HERE.is_closed_pipe(full, writing)
    with open(tmp_path / "out", "wb") as file:
        assert not HERE.is_closed_pipe(invalid, file.fileno())
        assert HERE.is_closed_pipe(BrokenPipeError(errno.EPIPE, "Broken pipe"), file.fileno())
    os.close(writing)
    assert not HERE.is_closed_pipe(invalid, writing)


@on_windows
def test_redirected_streams_are_utf_8_unless_somebody_says_otherwise():
    asked = ("generate", "demo", "-", "--echo", "-n", "2")
    plain = {name: text for name, text in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    for mark, said in (
        (b"", {}),
        (b"\xef\xbb\xbf", {}),
        (b"\xef\xbb\xbf", {"PYTHONUTF8": "1"}),
        (b"", {"PYTHONIOENCODING": ":"}),
    ):
        given = "é → 日 = ".encode()
        ran = run(*asked, input=mark + given, environment=plain | said, stdout=subprocess.PIPE)
        assert (ran.returncode, ran.stderr) == (0, b"") and ran.stdout.startswith(given) and b"\r" not in ran.stdout
    ran = run("generate", "é", "x", environment=plain, stdout=subprocess.PIPE)
    assert ran.returncode == 1 and "no folder 'é'".encode() in ran.stderr and ran.stderr.endswith(b"\n")
    ran = run(*asked, input=b"\xe9 = ", environment=plain | {"PYTHONIOENCODING": "cp1252"}, stdout=subprocess.PIPE)
    assert ran.returncode == 0 and ran.stdout.startswith(b"\xe9 = ")


def test_characters_that_the_terminal_lacks_are_escaped():
    shown = run("generate", "demo", "é → 日 = ", "--echo", "-n", "2", encoding="ascii", stdout=subprocess.PIPE)
    assert shown.returncode == 0 and shown.stdout.startswith(rb"\xe9 \u2192 \u65e5 = ")
    checked = run("verify", "demo", encoding="ascii", stdout=subprocess.PIPE)
    assert checked.returncode == 0 and b"  ok tokenizer: 4096 tokens\n" in checked.stdout
    helped = run("--help", encoding="ascii", stdout=subprocess.PIPE)
    assert helped.returncode == 0 and helped.stdout.isascii() and b"generate" in helped.stdout


@needs_wide_names
def test_json_stays_json_where_characters_lack(tmp_path):
    folder = shutil.copytree(resolve("demo"), tmp_path / "modèle")
    ran = run("generate", str(folder), "x", "-n", "2", "--json", encoding="ascii", stdout=subprocess.PIPE)
    assert ran.stdout.isascii() and json.loads(ran.stdout)["model"] == str(folder)


def test_bytes_that_are_no_text_are_refused():
    ran = run("generate", "demo", "-", input=b"abc\xff\xfe", stdout=subprocess.PIPE)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.startswith(b"error: standard input is no utf-8 text: found byte 0xFF after 3 characters; ")
    ran = run("chat", "-n", "3", input=b"abc\xff\nHi\n", stdout=subprocess.PIPE)
    assert ran.returncode == 0 and ran.stderr.startswith(b"error: the message is no utf-8 text: found byte 0xFF")
    with pytest.raises(ConfigError, match=r"--system is no .* text: found byte 0x80 after 1 characters"):
        require_text("é\udc80", "--system")
