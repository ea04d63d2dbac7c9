"""Where the prompt of ``pio generate`` comes from."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needs import needs_scripts

import pio as package
from pio.cli import prompt as source
from pio.system import HERE

PROMPT = "def add(a, b):\n"
GREEDY = ("-t", 0, "-n", 9)


def test_alone_it_shows_the_demo_model_at_its_best(pio: Any) -> None:
    ran = pio("generate")
    with package.load("demo") as model:
        result = model.generate(source.SHOWN_PROMPT, **source.SHOWN_FIELDS)
    assert ran.stdout == source.SHOWN_PROMPT + result.text + "\n" and result.finish_reason == "stop"
    [function] = ast.parse(ran.stdout).body  # one whole function, and nothing behind it
    assert isinstance(function, ast.FunctionDef) and len(function.body) > 2
    assert pio("generate", "demo").stdout == ran.stdout


def test_what_is_piped_in_is_the_prompt(pio: Any) -> None:
    given = pio("generate", "demo", PROMPT, *GREEDY, "--echo")
    assert given.stdout.startswith(PROMPT)
    for arguments in (("demo", "-"), ("demo",), ()):
        ran = pio("generate", *arguments, *GREEDY, "--echo", input=PROMPT)
        assert ran.stdout == given.stdout, arguments
    beside = pio("generate", "demo", PROMPT, *GREEDY, "--echo", input="never read")
    assert beside.stdout == given.stdout


MODULE = [sys.executable, "-m", "pio"]
NONE = [sys.executable, "-c", "import sys; sys.stdin = None; from pio.cli import main; main()"]  # as pythonw has it
CLOSED = ["sh", "-c", 'exec "$@" <&-', "sh", *MODULE]


@pytest.mark.parametrize("command", [MODULE, NONE, pytest.param(CLOSED, marks=needs_scripts)], ids=len)
def test_no_input_at_all_is_no_prompt(command: list[str]) -> None:
    ran = subprocess.run(
        [*command, "generate", "-n", "2"], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8"
    )
    assert ran.returncode == 0 and ran.stdout.startswith(source.SHOWN_PROMPT) and ran.stderr == ""


def test_an_input_that_stays_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, pio: Any) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(source, "PATIENCE", 0.0)
    with open(reading, encoding="utf-8") as silent:
        monkeypatch.setattr("sys.stdin", silent)
        assert source.read_prompt("demo", None, named=False) is None
        os.write(writing, b"late")
        os.close(writing)
        assert source.read_prompt("demo", None, named=True) == "late"


@pytest.mark.parametrize(
    ("arguments", "given", "words"),
    [
        (("demo", "-"), "", "found no tokens"),
        (("nowhere",), "", "no folder 'nowhere'"),
        (
            ("def f(",),
            "",
            f"'def f(' is no model, and a prompt comes after one: pio generate demo {HERE.quote('def f(')}",
        ),
        (("Say hello.",), "", f"pio generate demo {HERE.quote('Say hello.')}"),
        (("some-org/some-model",), "", "run pio download some-org/some-model"),
        (("Qwen3-0.6B", "x"), "", "did you mean 'Qwen/Qwen3-0.6B'?"),
        (("qwen3_0_6b", "x"), "", "did you mean 'Qwen/Qwen3-0.6B'?"),
        (("QWEN/qwen3-0.6b", "x"), "", "did you mean 'Qwen/Qwen3-0.6B'?"),
    ],
)
def test_mistakes(pio: Any, arguments: tuple[str, ...], given: str, words: str) -> None:
    ran = pio("generate", *arguments, input=given)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1 and words in ran.stderr
    assert "download=True" not in ran.stderr


def test_a_model_that_is_there_needs_a_prompt(pio: Any) -> None:
    folder = Path(package.__file__).parent / "demo"
    ran = pio("generate", folder, input="")
    assert (
        ran.exit_code == 1
        and f"there is no prompt; give one after the model, or pipe it in: pio generate {folder}" in ran.stderr
    )


def test_more_than_any_context_is_refused(pio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LONGEST", 10)
    assert "more than 10 characters" in pio("generate", "demo", input="x" * 11).stderr
