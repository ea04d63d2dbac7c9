"""``pio generate --response-format``: the three forms, what is refused, and what JSON output says of it."""

from __future__ import annotations

import json

import pytest

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 0}}, "required": ["n"]}
CLOSED = {**SCHEMA, "additionalProperties": False}


def test_a_file_with_a_schema(pio, tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(CLOSED), "utf-8")
    ran = pio("generate", "demo", "x = ", "--no-echo", "--response-format", file, "--seed", 2)
    assert (ran.exit_code, [*json.loads(ran.stdout)]) == (0, ["n"])
    ran = pio("generate", "demo", "x = ", "--json", "--response-format", file, "--seed", 2)
    found = json.loads(ran.stdout)
    assert found["parsed"] == json.loads(found["text"]) and 0 <= found["parsed"]["n"] <= 99
    ran = pio("generate", "demo", "x = ", "--json", "--response-format", file, "--seed", 2, "--answers", 3)
    assert [sample["parsed"]["n"] in range(100) for sample in json.loads(ran.stdout)["samples"]] == [True] * 3
    ran = pio("generate", "demo", "x = ", "--json", "--response-format", file, "-n", 1)
    assert json.loads(ran.stdout)["parsed"] is None


def test_choices_expressions_and_any_object(pio, tmp_path):
    file = tmp_path / "choices.json"
    file.write_text('["yes", "no"]', "utf-8")
    ran = pio("generate", "demo", "x = ", "--no-echo", "--response-format", file)
    assert ran.stdout in ("yes\n", "no\n")
    ran = pio("generate", "demo", "x = ", "--no-echo", "--response-format", "regex:[ab]{3}")
    assert len(ran.stdout) == 4 and {*ran.stdout} <= {*"ab\n"}
    ran = pio("generate", "demo", "x = ", "--no-echo", "--response-format", "json", "-n", 20)
    assert ran.exit_code == 0 and ran.stdout.startswith("{")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("3", "cannot be used"),
        ('{"type": "array", "uniqueItems": true}', "uniqueItems at #/uniqueItems"),
        (" " * (1 << 21), "more than 1,048,576 bytes"),
    ],
)
def test_what_cannot_be_read_is_refused(pio, tmp_path, text, said):
    file = tmp_path / "it.json"
    if text is not None:
        file.write_text(text, "utf-8")
    ran = pio("generate", "demo", "x = ", "--response-format", file)
    assert ran.exit_code == 1 and said in " ".join(ran.stderr.split())
