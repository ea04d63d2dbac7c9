"""Calls in answers: what is found, however the answer is cut, and the faults that others had."""

from __future__ import annotations

import random

import pytest
from recorded_answers import ANSWERS, check, read

from pio.text.calling.call_format import FORMATS

CASES = 10_000


@pytest.mark.parametrize(("form", "name"), ANSWERS, ids=map(" ".join, ANSWERS))
def test_a_recorded_answer(form: str, name: str) -> None:
    check(form, *ANSWERS[form, name])


@pytest.mark.parametrize(("form", "name"), ANSWERS, ids=map(" ".join, ANSWERS))
def test_any_split_gives_the_same(form: str, name: str) -> None:
    """Ten thousand ways to cut, over all recorded answers; each character alone, and each two halves, among them."""
    answer, _ = ANSWERS[form, name]
    whole, draw = read(form, [answer]), random.Random(f"{form} {name}")
    assert read(form, list(answer)) == whole
    for cut in range(len(answer)):
        assert read(form, [answer[:cut], answer[cut:]]) == whole
    for _ in range(CASES // len(ANSWERS) + 1):
        longest, pieces, place = draw.choice((2, 4, 9, 30)), list[str](), 0
        while place < len(answer):
            size = draw.randint(0, longest)
            pieces.append(answer[place : place + size])
            place += size
        assert read(form, pieces) == whole, pieces


PIECES = [
    *("<tool_call>", "</tool_call>", "<function=", "<function=write>", "</function>", "<parameter=", "</parameter>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<", ">", "=", "\n", " ", "\r\n", "path", "content"),
    *(
        "write",
        "days",
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        "'",
        '{"name": "write", "arguments": {"path": "',
        "5",
        "é",
        "text",
    ),
]


@pytest.mark.parametrize("form", FORMATS)
def test_any_text_at_all(form: str) -> None:
    """Tags in any order: nothing is lost, every call is told, and pieces make no difference."""
    draw, calls = random.Random(form), 0
    for _ in range(1000):
        answer = "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 40)))
        whole = read(form, [answer])
        assert read(form, list(answer)) == whole, answer
        cut = draw.randint(0, len(answer))
        assert read(form, [answer[:cut], answer[cut:]]) == whole, answer
        calls += len(whole[1])
        assert ("<tool_call>" in answer or "<function=write>" in answer) or not whole[1]
    assert calls > 300
