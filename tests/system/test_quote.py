"""A text that a message puts into a command line: a shell and a program read it as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pio.system import HERE


@pytest.mark.parametrize(
    "text",
    [
        "demo",
        "def f(",
        "",
        "my models/m",
        "C:\\my models\\m",
        "C:\\my models\\",
        'say "no"',
        'C:\\"x" \\\\',
        "größe 日本",
        "a & b > c",
    ],
)
def test_a_quoted_text_is_one_argument(text: str) -> None:
    command = f'{HERE.quote(sys.executable)} -c "import sys; print(ascii(sys.argv[1:]))" {HERE.quote(text)}'
    said = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    assert said.strip() == ascii([text])


@pytest.mark.parametrize("text", ["demo", "org/name", "model-1.5"])
def test_a_plain_text_is_left_as_it_is(text: str) -> None:
    assert HERE.quote(text) == text
