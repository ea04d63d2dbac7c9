"""What is said of another system: tools/port/sample, beside doubles of the programs that make systems."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from needs import needs_scripts

SAMPLE = Path(__file__).parent.parent / "tools" / "port" / "sample"
PYTEST = 'case "$*" in *pytest*) echo "3 passed, 1 skipped in 0.1s"; exit ;; esac; '

pytestmark = [needs_scripts, pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")]


def sample(folder: Path, here: str, there: str, name: str = "windows") -> tuple[int, list[str]]:
    """Run a sample, where Python here and the one of the other system do what scripts say.

    Returns:
        The exit code, and the lines.
    """
    port = folder / "tools" / "port"
    port.mkdir(parents=True)
    shutil.copy(SAMPLE, port)
    for path, script in ((port / name, there), (folder / "python", here)):
        path.write_text(f"#!/usr/bin/env bash\n{script}\n", "utf-8")
        path.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(
        [port / "sample", name], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout.splitlines()


def test_all_is_well(tmp_path: Path) -> None:
    code, lines = sample(tmp_path, "echo answer", PYTEST + "printf 'answer\\r\\n'")
    assert code == 0 and lines[-1] == "windows: 3 passed, 0 failed, 1 skipped"
    assert "the same answer as it is" in lines and "the same answer --quantize=int4" in lines


def test_a_skip_is_said_last(tmp_path: Path) -> None:
    code, lines = sample(tmp_path, "echo answer", "echo 'windows: skipped, this machine has no apt-get' >&2; exit 77")
    assert (code, lines[-1]) == (77, "windows: skipped, this machine has no apt-get")


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("echo answer", "echo another"),
        ("echo answer", "echo answer; exit 1"),
        ("exit 1", "exit 1"),
        ("echo answer; exit 1", "echo answer"),
        ("exit 0", "exit 0"),
    ],
    ids=["another answer", "it fails there", "it fails in both", "it fails here", "it says nothing in both"],
)
def test_what_is_not_the_same_answer(tmp_path: Path, here: str, there: str) -> None:
    code, lines = sample(tmp_path, here, f'{PYTEST}case "$*" in *--temperature*) ;; *) exit 0 ;; esac; {there}')
    assert code == 1 and lines[-1].startswith("windows: failed: same_answers ")
    assert not any(line.startswith("the same answer") for line in lines)


@pytest.mark.parametrize("listed", sorted(SAMPLE.parent.glob("*.tests")), ids=lambda path: path.stem)
def test_what_a_sample_runs_is_there(listed: Path) -> None:
    """A test that was moved would be missed by other systems alone."""
    root, found = SAMPLE.parents[2], 0
    for line in listed.read_text("utf-8").split():
        if line.startswith("tests/"):
            path, _, name = line.partition("::")
            assert (root / path).exists(), line
            assert not name or f"def {name}(" in (root / path).read_text("utf-8"), line
            found += 1
    assert found


FLAKY = """
case "$*" in
  *pytest*.tests*)
    echo "FAILED tests/a.py::test_b[c-1] - RuntimeError: odd"
    echo "1 failed, 3 passed in 0.1s"
    exit 1
    ;;
  *pytest*"tests/a.py::test_b[c-1]") echo "%s in 0.1s"; exit %d ;;
esac
echo answer
"""


@pytest.mark.parametrize(("second", "status"), [("1 passed", 0), ("1 failed", 1)])
def test_what_fails_under_an_emulator_is_run_once_more(tmp_path: Path, second: str, status: int) -> None:
    code, lines = sample(tmp_path, "echo answer", FLAKY % (second, status), "arm64")
    assert code == status
    assert "arm64: once more: tests/a.py::test_b[c-1]" in lines
    assert any(line.startswith("arm64: failed: tests arm64") for line in lines) is bool(status)


def test_what_fails_without_an_emulator_has_failed(tmp_path: Path) -> None:
    code, lines = sample(tmp_path, "echo answer", FLAKY % ("1 passed", 0), "windows")
    assert code == 1 and not any("once more" in line for line in lines)
