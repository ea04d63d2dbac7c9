"""Messages of a command name the options that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pio.cli import remedies
from pio.cli.app import make_app
from pio.config.runtime import RuntimeConfig
from pio.engine.sampling_params import SamplingParams

COMMANDS: dict[str, Any] = vars(typer.main.get_command(make_app()))["commands"]
GIVEN = {
    "generate": ["demo", "x", "-n", "1", "--json"],
    "chat": ["demo", "-n", "1"],
    "quantize": ["demo", "{folder}/new"],
    "bench": ["--rounds", "1", "--new-tokens", "2", "--prompt-tokens", "3", "--buffer-mb", "1", "--depth", "2"],
    "warmup": ["demo"],
    "models": [],
    "verify": ["demo"],
    "doctor": [],
    "download": ["no-repo"],
}
FIELDS = {*RuntimeConfig.model_fields, *SamplingParams.model_fields}


def flags(command: str) -> set[str]:
    return {flag for p in COMMANDS[command].params for flag in (*p.opts, *p.secondary_opts)}


def options() -> Iterator[tuple[str, str]]:
    for command in GIVEN:
        for parameter in COMMANDS[command].params:
            longest = max(parameter.opts, key=len)
            if longest.startswith("--") and not parameter.is_flag:
                yield command, longest


@pytest.mark.parametrize(("command", "option"), list(options()))
def test_an_impossible_value(
    pio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a folder is made where none is
    given = [argument.format(folder=tmp_path) for argument in GIVEN[command]]
    for value in ("-7", "none-such"):
        ran = pio(command, *given, option, value, input="Hi\n")
        shown = ran.output if command == "verify" else ran.stderr  # whose checks are what it writes
        said = " ".join(re.sub("[│╭╮╰╯─]", " ", shown).split())
        if ran.exit_code == 0:  # a text such as --stop may be anything
            assert said == "" or said.startswith("note: the answer ended inside the model's reasoning")
            continue
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", said))
        assert named <= flags(command), said
        if command != "download":  # whose repo is refused first
            assert option in named, said
        for field in FIELDS:
            assert not re.search(rf"(?<![\w/.-]){field}=", said), said
            assert "_" not in field or not re.search(rf"(?<![\w/.'-]){field}\b", said), said
        assert "download the model again" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "demo", "x", "--answers", "3", "-t", "0"], "--answers 3 contradicts --temperature 0.0: "),
        (
            ["generate", "demo", "x", "--include-stop", "--ignore-eos"],
            "--include-stop contradicts --ignore-eos without",
        ),
        (["generate", "demo", "x", "--stop-token-id", "999999"], "--stop-token-id: token id 999999 is outside"),
        (["generate", "demo", "x", "--plugin", "walnut"], "--plugin 'walnut' is not installed"),
        (["generate", "demo", "x", "--memory-limit", "1kB"], "--memory-limit"),
        (
            ["generate", "demo", "x", "--memory-limit", "4 parsecs"],
            "--memory-limit is '4 parsecs': expected a number of ",
        ),
        (["generate", "demo", "x", "--context-length", "4096"], "--context-length 4096 cannot be used"),
        (
            ["generate", "demo", "x", "--seed", "-1"],
            "--seed -1 cannot be used: expected a whole number from 0 to 184467",
        ),
        (["bench", "--config", "nowhere.json"], "--config nowhere.json: there is no such file; give a config.json"),
        (["quantize", "demo", "{folder}/new", "--format", "q4"], "--format is 'q4', expected int8, int4 or int4_zero"),
        (["quantize", "demo", "{folder}/new", "--policy", "all"], "--policy is 'all', expected balanced or uniform"),
    ],
)
def test_what_is_wrong_is_said_in_options(pio: Any, tmp_path: Path, arguments: list[str], words: str) -> None:
    ran = pio(*(argument.format(folder=tmp_path) for argument in arguments))
    assert ran.exit_code == 1 and words in ran.stderr, ran.stderr
    assert not re.search(r"\b(or None|n=|[a-z]+_[a-z_]+=)", ran.stderr)


@pytest.mark.parametrize(
    ("command", "message", "words"),
    [
        ("generate", "raise memory_limit or ask for less", "raise --memory-limit or ask for less"),
        ("generate", "the weights with quantize='int4' take 5", "the weights with --quantize 'int4' take 5"),
        ("generate", "skip_special_tokens=False is odd", "--special-tokens is odd"),
        ("generate", "stop_token_ids=[1, 2], n=3", "--stop-token-id [1, 2], --answers 3"),
        ("generate", "run pio download a/b, or pass download=True", "run pio download a/b"),
        ("generate", "a/context_length/x.json: top_k.txt, --top-k", "a/context_length/x.json: top_k.txt, --top-k"),
        ("generate", "contradicts prefix_cache=False; or", "contradicts --prefix-cache off; or"),
        ("generate", "fewer with prefill_chunk", "fewer with prefill_chunk"),
        ("quantize", "raise memory_limit", "raise memory_limit"),  # which it has no option for
        ("generate", "top_k is odd, 'top_k' is none", "--top-k is odd, 'top_k' is none"),
        ("quantize", "policy is 'x', the format is fine", "--policy is 'x', the format is fine"),
    ],
)
def test_words(command: str, message: str, words: str) -> None:
    remedies.speak_of(COMMANDS[command].params)
    try:
        assert remedies.as_options(message) == words
    finally:
        remedies.speak_of(())


def test_names_that_were_changed_are_those_of_options_and_arguments() -> None:
    names = {parameter.name for parameter in COMMANDS["generate"].params}
    assert set(remedies.RENAMED) <= names and set(remedies.RENAMED.values()) <= FIELDS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("help",), "Usage: pio [OPTIONS] COMMAND"),
        (("help", "generate"), "Usage: pio generate [OPTIONS]"),
        (("version",), "pio "),
        (("generat",), "Did you mean 'generate'?"),
        (("run", "demo"), "pio chat MODEL talks with a model"),
        (("serve",), "has no server"),
        (("pull", "org/name"), "pio download ORG/NAME"),
        (("list",), "pio models"),
    ],
)
def test_first_words(pio: Any, arguments: tuple[str, ...], words: str) -> None:
    ran = pio(*arguments)
    assert words in " ".join(re.sub("[│╭╮╰╯─]", " ", ran.output).split())
    assert ran.exit_code == (0 if arguments[0] in ("help", "version") else 2)
