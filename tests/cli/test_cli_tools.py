"""``pio generate --tools``: calls as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from calling_model import make_calling_model

import pio as package

PROMPT = "Write a function."
TOOLS = [{"type": "function", "function": {"name": "save", "parameters": {"properties": {"code": {"type": "string"}}}}}]
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_calling_model(tmp_path_factory.mktemp("calling") / "model")
    (folder / "tools.txt").write_text(json.dumps(TOOLS), "utf-8")
    return folder


def test_calls_are_lines_of_json(pio: Run, folder: Path) -> None:
    given = ("--tools", folder / "tools.txt", "--tool-choice", "save", "-t", 0, "-n", 12)
    with package.load(folder) as model:
        ask = {"role": "user", "content": PROMPT}
        fields: dict[str, Any] = {"temperature": 0, "max_new_tokens": 12}
        result = model.generate([ask], tools=TOOLS, tool_choice={"name": "save"}, **fields)
        plain = "".join(model.stream([ask], tools=TOOLS, **fields))
    ran = pio("generate", folder, PROMPT, *given)
    assert ran.exit_code == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [json.loads(line) for line in lines if line.startswith("{")] == [
        {name: value for name, value in asdict(call).items() if call.malformed or name not in ("raw", "malformed")}
        for call in result.tool_calls
    ]
    found = json.loads(pio("generate", folder, PROMPT, *given, "--json").stdout)
    assert found["tool_calls"] == [asdict(call) for call in result.tool_calls] != []
    ran = pio("generate", folder, PROMPT, "--tools", folder / "tools.txt", "-t", 0, "-n", 12)
    assert "<tool_call>" not in plain and ran.stdout == plain + ("" if plain.endswith("\n") else "\n")
    ran = pio("generate", folder, PROMPT, *given[:4], "-n", 12, "--answers", 2, "--seed", 3)
    assert ran.exit_code == 0 and ran.stdout.count('"id": "call_') == 2


@pytest.mark.parametrize(
    ("content", "more", "told"),
    [
        (None, (), "cannot be read"),
        ("[", (), "is no JSON"),
        ("{}", (), "holds no list of tools"),
        ("[]", (), "holds no list of tools"),
        ('[{"name": "a b"}]', (), "tools[0] has the name 'a b'"),
        ('[{"name": "a"}]', ("--tool-choice", "b"), "there is no tool 'b'"),
        ('[{"name": "a"}]', ("--prefix", "x"), "--tools is for questions"),
    ],
)
def test_what_is_wrong_with_tools(
    pio: Run, folder: Path, tmp_path: Path, content: str | None, more: tuple[str, ...], told: str
) -> None:
    file = tmp_path / "tools.json"
    if content is not None:
        file.write_text(content, "utf-8")
    prompt = () if "--prefix" in more else (PROMPT,)
    ran = pio("generate", folder, *prompt, "--tools", file, *more)
    assert (ran.exit_code, ran.stdout) == (1, "") and told in ran.stderr


def test_a_choice_without_tools(pio: Run, folder: Path) -> None:
    ran = pio("generate", folder, PROMPT, "--tool-choice", "none")
    assert ran.exit_code == 1 and "--tool-choice is for --tools" in ran.stderr
