"""Schemas from the field: which instances pio's masks let through, and what walks at random under them end with."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jsonschema.validators import validator_for

import pio
from pio.errors import ConfigError
from pio.structured.grammars import Grammars
from pio.structured.guide import Guide
from pio.structured.response_format import ResponseFormat
from pio.text.tokenizer import Tokenizer

SAMPLE = Path(__file__).parents[2] / ".." / "shared" / "schemas" / "maskbench-sample.jsonl"
VOCAB = 4096
ENDS = (0, 2)
WALKS, LONGEST = 60, 3000
SHORT = {b'"', b"]", b"}", b"0", b"n", b"t", b"f", b"-", b":", b","}

pytestmark = pytest.mark.skipif(not SAMPLE.exists(), reason="../shared/schemas is not there")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = Tokenizer.from_folder(Path(pio.__file__).parent / "demo", vocab_size=VOCAB)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, VOCAB, ENDS)


def schemas() -> Iterator[dict[str, Any]]:
    with SAMPLE.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def accepts(guide: Guide, ids: list[int]) -> bool:
    """Whether the masks let these tokens through, one after another, and then an end token."""
    for token in (*ids, ENDS[0]):
        if guide.complete:
            return token == ENDS[0]
        if not guide.mask.words[token // 32] >> token % 32 & 1:
            return False
        guide.take(token)
        if not guide.complete:
            guide.follow("answer", "")
    return guide.complete


def test_no_invalid_instance_passes_and_hardly_a_valid_one_is_refused(grammars: Grammars, tokenizer: Tokenizer) -> None:
    refused: list[str] = []
    wrong: dict[bool, list[str]] = {True: [], False: []}
    compiled = 0
    for row in schemas():
        try:
            response_format = ResponseFormat.of(row["schema"])
            grammars.guide(response_format, None)
        except ConfigError as error:
            refused.append(str(error))
            continue
        compiled += 1
        for test in row["tests"]:
            ids = tokenizer.encode(json.dumps(test["data"], ensure_ascii=False))
            if accepts(grammars.guide(response_format, None), ids) != test["valid"]:
                wrong[test["valid"]].append(row["id"])
    assert compiled >= 1150
    assert wrong[False] == []
    assert len(wrong[True]) <= 5, wrong[True]
    unnamed = [said for said in refused if " at #/" not in said and "too large" not in said]
    assert unnamed == []


@pytest.fixture
def walks(pytestconfig: pytest.Config) -> int | None:
    """How many schemas are walked: a sample, or with ``--long`` all that compile."""
    return None if pytestconfig.getoption("--long") else WALKS


@pytest.mark.stress
# Of patterns that Python's own expressions may read otherwise.
@pytest.mark.filterwarnings("ignore:Possible :FutureWarning")
def test_random_walks_end_valid(grammars: Grammars, tokenizer: Tokenizer, walks: int | None) -> None:
    """Any token that the mask allows, each as likely: the answer ends, and an independent validator takes it.

    Behind 300 tokens a walk ends texts, lists and objects where it may. A text whose ``pattern`` or ``format`` asks for
    what chance does not find stays open: there no end is asked for, but that each mask lets something come.
    """
    chance, open_ended, walked = random.Random(7), list[str](), 0
    for row in schemas():
        try:
            guide = grammars.guide(ResponseFormat.of(row["schema"]), None)
        except ConfigError:
            continue
        data = walk(guide, tokenizer, chance)
        if guide.complete:
            try:
                validator_for(row["schema"])(row["schema"]).validate(json.loads(data))
            except jsonschema.ValidationError as error:
                raise AssertionError(f"{row['id']}: {error.message[:300]}") from None
        else:
            open_ended.append(row["id"])
            shape = json.dumps(row["schema"])
            assert in_text(data) and ('"pattern"' in shape or '"format"' in shape), (row["id"], data[-200:])
        walked += 1
        if walked == walks:
            break
    assert walked == walks or walked >= 1150
    assert len(open_ended) <= walked // 40, open_ended


def walk(guide: Guide, tokenizer: Tokenizer, chance: random.Random) -> bytes:
    """The text of tokens that the masks allow, at random, to the end of the answer or until there are too many."""
    text, count = b"", 0
    while not guide.complete and count < LONGEST:
        token = step(guide, text if count > 300 else None, tokenizer, chance)
        text, count = text + (b"" if token in ENDS else tokenizer.bytes_of[token]), count + 1
        guide.take(token)
        if not guide.complete:
            guide.follow("answer", "")
    return text


def step(guide: Guide, late: bytes | None, tokenizer: Tokenizer, chance: random.Random) -> int:
    bits = int.from_bytes(guide.mask.words.tobytes(), "little")
    found = [token for token in range(VOCAB) if bits >> token & 1]
    assert found, "a dead end"
    if late is not None:
        ways = [b'"'] if (inside := in_text(late)) else [b"}", b"]"]
        soon = [token for token in found if token in ENDS]
        soon = soon or [token for token in found if tokenizer.bytes_of[token] in ways]
        soon = soon or [token for token in found if tokenizer.bytes_of[token] in SHORT and not inside]
        zeros = all(tokenizer.bytes_of[token] == b"0" for token in soon)  # none of which may be the last digit
        found = found if zeros else soon
    return chance.choice(found)


def in_text(data: bytes) -> bool:
    """Whether JSON so far ends within a text."""
    return re.sub(rb"\\.", b"", data, flags=re.DOTALL).count(b'"') % 2 == 1
