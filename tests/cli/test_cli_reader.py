"""What counts as one message in ``pio chat``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pio.cli.reader import next_message
from pio.system import HERE


def reader(*lines: str | type[BaseException]) -> tuple[Callable[[str], str], list[str]]:
    """Return a function that gives these lines one after the other, and the prompts that it was given."""
    left, prompts = iter(lines), []

    def read(prompt: str) -> str:
        prompts.append(prompt)
        line = next(left, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return read, prompts


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (("one", "two"), ["one", "two"]),
        (("one\\", "two\\", "three", "four"), ["one\ntwo\nthree", "four"]),
        (('"""', "a", "", "  b", '"""', "c"), ["a\n\n  b", "c"]),
        (('"""a', 'b"""', "c"), ["a\nb", "c"]),
        (('"""a"""', "c"), ["a", "c"]),
        (('"""', "a\\", '"""'), ["a\\"]),
        (("pasted\nin one\\", "next"), ["pasted\nin one\\", "next"]),
        (('"""doc"""\nx = 1', "next"), ['"""doc"""\nx = 1', "next"]),
        (("never ended\\",), ["never ended"]),
        (('"""never', "ended"), ["never\nended"]),
        ((), []),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_messages(lines: Any, messages: list[str], terminal: bool) -> None:
    read, prompts = reader(*lines)
    found = []
    while (message := next_message(terminal, read)) is not None:
        found.append(message)
    assert found == messages
    assert set(prompts) <= ({"> ", ". "} if terminal else {""})


def test_ctrl_c_drops_what_was_typed_and_says_how_to_leave(capsys: pytest.CaptureFixture[str]) -> None:
    read, prompts = reader("half\\", KeyboardInterrupt, "Hi", EOFError)
    assert next_message(True, read) == "Hi"
    assert prompts == ["> ", ". ", "> "]
    assert capsys.readouterr() == ("\n", f"{HERE.end_of_input} leaves\n")
    assert next_message(True, read) is None


def test_ctrl_c_over_a_pipe_ends_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        next_message(False, reader(KeyboardInterrupt)[0])
