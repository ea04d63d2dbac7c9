"""Tokens that the files beside tokenizer.json add: expected values are what transformers 5.23 gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

import pio
from pio.errors import CheckpointError, ConfigError
from pio.plugin.prompts import Prompts
from pio.text.chat_template import ChatTemplate
from pio.text.tokenizer import Tokenizer

ONE, TWO, FREE = "<w1>", "<w2>", 5  # two tokens, and the first id that is free


def entry(content: str, **flags: Any) -> dict[str, Any]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content, **plain, **flags}


def typed(content: str, **flags: Any) -> dict[str, Any]:
    return {"__type": "AddedToken", **entry(content, **flags)}


def write(
    folder: Path,
    *,
    stored: list[dict[str, Any]] | None = None,
    names: dict[str, Any] | None = None,
    older: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "<eos>": 3, " ": 4}
    backend: Any = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    backend.add_special_tokens(["<eos>"])
    data = json.loads(backend.to_str())
    data["added_tokens"] += stored or []
    for name, value in (
        ("tokenizer.json", data),
        ("tokenizer_config.json", {"eos_token": "<eos>", **config}),
        ("special_tokens_map.json", names),
        ("added_tokens.json", older),
    ):
        if value is not None:
            (folder / name).write_text(json.dumps(value), "utf-8")
    return folder


def load(folder: Path) -> Tokenizer:
    found = Tokenizer.from_folder(folder)
    assert found is not None
    return found


# What a folder says, the ids of ONE and TWO, and which of them are special.
WAYS: dict[str, tuple[dict[str, Any], dict[str, int], str]] = {
    "decoder": ({"added_tokens_decoder": {"5": entry(ONE), "6": entry(TWO, special=False)}}, {ONE: 5, TWO: 6}, ONE),
    "decoder, any order": ({"added_tokens_decoder": {"6": entry(ONE), "5": entry(TWO)}}, {ONE: 6, TWO: 5}, ONE + TWO),
    "decoder and name": (
        {"added_tokens_decoder": {"5": entry(ONE, special=False)}, "pad_token": TWO, "cls_token": ONE},
        {ONE: 5, TWO: 6},
        ONE + TWO,
    ),
    "additional": ({"additional_special_tokens": [ONE, TWO]}, {ONE: 5, TWO: 6}, ONE + TWO),
    "additional, objects": ({"additional_special_tokens": [typed(TWO), ONE]}, {TWO: 5, ONE: 6}, ONE + TWO),
    "extra list": ({"extra_special_tokens": [TWO, "", ONE]}, {TWO: 5, ONE: 6}, ONE + TWO),
    "extra names": ({"extra_special_tokens": {"image_token": ONE, "b": TWO}}, {ONE: 5, TWO: 6}, ONE + TWO),
    "extra wins": ({"extra_special_tokens": [ONE], "additional_special_tokens": [TWO]}, {ONE: 5}, ONE),
    "empty extra": ({"extra_special_tokens": {}, "additional_special_tokens": [TWO]}, {TWO: 5}, TWO),
    "any name": ({"image_token": ONE, "add_bos_token": True}, {ONE: 5}, ONE),
    "names first": ({"extra_special_tokens": [ONE], "mask_token": TWO}, {TWO: 5, ONE: 6}, ONE + TWO),
    "order of names": ({"cls_token": ONE, "sep_token": TWO}, {TWO: 5, ONE: 6}, ONE + TWO),
    "map": ({"names": {"eos_token": ONE, "additional_special_tokens": [TWO]}}, {ONE: 5, TWO: 6}, ONE + TWO),
    "map, unless decoder": (
        {"names": {"eos_token": ONE}, "added_tokens_decoder": {"3": entry("<eos>"), "5": entry(TWO)}},
        {TWO: 5},
        TWO,
    ),
    "older": ({"older": {TWO: 6, ONE: 5}}, {ONE: 5, TWO: 6}, ""),
    "older and name": ({"older": {ONE: 5, TWO: 6}, "pad_token": TWO}, {ONE: 5, TWO: 6}, TWO),
    "older, unless decoder": ({"older": {ONE: 5}, "added_tokens_decoder": {"5": entry(TWO)}}, {TWO: 5}, TWO),
    "of both files": (
        {"stored": [{"id": 5, **entry(ONE)}], "extra_special_tokens": [TWO]},
        {ONE: 5, TWO: 6},
        ONE + TWO,
    ),
    "of the vocabulary": ({"additional_special_tokens": ["a"]}, {}, ""),
}


@pytest.mark.parametrize("way", WAYS)
def test_they_are_tokens(way: str, tmp_path: Path) -> None:
    given, ids, special = WAYS[way]
    tokenizer = load(write(tmp_path, **given))
    for word, number in ids.items():
        assert tokenizer.encode(f"a{word}b") == [1, number, 2]
        assert tokenizer.decode([number]) == word
        assert (number in tokenizer.special_ids) == (word in special)
    assert tokenizer.size == FREE + len(ids)
    assert {token for token in (ONE, TWO) if tokenizer.token_to_id(token) is not None} == set(ids)


# One token in both files: its flags as tokenizer.json and as tokenizer_config.json have them, and which hold.
BOTH: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "decoder wins": (
        {"lstrip": True},
        {"added_tokens_decoder": {"5": entry(ONE, rstrip=True, special=False)}},
        {"rstrip"},
    ),
    "a name keeps the flags": ({"lstrip": True, "special": False}, {"pad_token": ONE}, {"lstrip", "special"}),
    "older keeps them": ({"lstrip": True, "special": False}, {"older": {ONE: 5}}, {"lstrip"}),
    "a list makes it special": (
        {"rstrip": True, "special": False},
        {"additional_special_tokens": [ONE]},
        {"rstrip", "special"},
    ),
    "an object of its own": ({"lstrip": True}, {"pad_token": typed(ONE, rstrip=True)}, {"lstrip", "special"}),
}


@pytest.mark.parametrize("way", BOTH)
def test_which_flags_hold(way: str, tmp_path: Path) -> None:
    flags, config, expected = BOTH[way]
    tokenizer = load(write(tmp_path, stored=[{"id": 5, **entry(ONE, **flags)}], **config))
    spaces = [[] if side in expected else [4] for side in ("lstrip", "rstrip")]
    assert tokenizer.encode(f"a {ONE} b") == [1, *spaces[0], 5, *spaces[1], 2]
    assert (5 in tokenizer.special_ids) == ("special" in expected)


def test_single_words_and_normalized_texts(tmp_path: Path) -> None:
    listed = {"5": entry(ONE, single_word=True), "6": entry("ab", special=False, normalized=True)}
    tokenizer = load(write(tmp_path, added_tokens_decoder=listed))
    assert tokenizer.encode(f"a{ONE} {ONE}") == [0, 4, 5]
    assert tokenizer.encode("aba") == [6, 1]


def test_names_reach_the_template(tmp_path: Path) -> None:
    write(tmp_path, extra_special_tokens={"image_token": ONE}, names={"bos_token": {"content": TWO}})
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ image_token }}{{ eos_token }}", "utf-8")
    assert ChatTemplate.from_folder(tmp_path).render([{"role": "user", "content": "Hi"}]) == "<w2><w1><eos>"
    assert load(tmp_path).special_tokens == {"bos_token": TWO, "eos_token": "<eos>", "image_token": ONE}


MOVED: dict[str, tuple[dict[str, Any], str]] = {
    "gap": ({"added_tokens_decoder": {"6": entry(ONE)}}, "added_tokens_decoder .*'<w1>' the id 6.* 5: ids before"),
    "taken": ({"added_tokens_decoder": {"2": entry(ONE)}}, "added_tokens_decoder .*'<w1>' the id 2.* 5: .*of 'b'"),
    "two ids": ({"added_tokens_decoder": {"5": entry(ONE), "6": entry(ONE)}}, "'<w1>' the id 6"),
    "older": ({"older": {ONE: 7}}, r"added_tokens\.json .*'<w1>' the id 7"),
    "other file": (
        {"stored": [{"id": 5, **entry(TWO)}], "added_tokens_decoder": {"5": entry(ONE)}},
        "'<w1>' the id 5.* of '<w2>'",
    ),
    "gap in the file": ({"stored": [{"id": 9, **entry(ONE)}]}, r"tokenizer\.json: added_tokens .*'<w1>' the id 9"),
    "order in the file": (
        {"stored": [{"id": 6, **entry(ONE)}, {"id": 5, **entry(TWO)}]},
        r"tokenizer\.json: added_tokens .*'<w1>' the id 6",
    ),
    "twice in the file": ({"stored": [{"id": 5, **entry(ONE)}, {"id": 6, **entry(ONE)}]}, "'<w1>' the id 6"),
    "in the vocabulary": ({"stored": [{"id": 5, **entry("a")}]}, "'a' the id 5"),
}


@pytest.mark.parametrize("way", MOVED)
def test_ids_that_the_tokenizer_would_move_are_refused(way: str, tmp_path: Path) -> None:
    given, match = MOVED[way]
    with pytest.raises(CheckpointError, match=match):
        Tokenizer.from_folder(write(tmp_path, **given))


WRONG: dict[str, dict[str, Any]] = {
    "added_tokens_decoder": {"added_tokens_decoder": [ONE]},
    "added_tokens_decoder ": {"added_tokens_decoder": {"five": entry(ONE)}},
    "added_tokens_decoder  ": {"added_tokens_decoder": {"5": {"special": True}}},
    "lstrip": {"added_tokens_decoder": {"5": entry(ONE, lstrip="yes")}},
    "extra_special_tokens": {"extra_special_tokens": 7},
    "extra_special_tokens ": {"additional_special_tokens": [7]},
    "b": {"extra_special_tokens": {"b": 7}},
    "added_tokens.json": {"older": {ONE: None}},
    "added_tokens.json ": {"older": {ONE: True}},
    "pad_token": {"pad_token": {"text": ONE}},
}


@pytest.mark.parametrize("field", WRONG)
def test_what_is_no_token_is_named(field: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{field.strip()}.*expected"):
        Tokenizer.from_folder(write(tmp_path, **WRONG[field]))


@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json"])
def test_older_files_that_are_no_json(name: str, tmp_path: Path) -> None:
    (write(tmp_path) / name).write_text("[]", "utf-8")
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.from_folder(tmp_path)


def test_tokens_beyond_the_models_vocabulary_load_and_are_refused_in_prompts(tmp_path: Path) -> None:
    """transformers loads such folders too, and its models have no row for the id."""
    folder = tmp_path / "model"
    shutil.copytree(Path(pio.__file__).parent / "demo", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "extra_special_tokens": [ONE]}), "utf-8")
    with pio.load(folder) as model:
        assert model.tokenize(ONE) == [4096]
        assert model.generate_text("a", max_new_tokens=1) is not None
        with pytest.raises(ConfigError, match="4096"):
            model.generate_text(f"a{ONE}", max_new_tokens=1)


def test_other_vocabularies_are_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}", "utf-8")
    (tmp_path / "merges.txt").write_text("", "utf-8")
    prompts = Prompts(str(tmp_path), Tokenizer.from_folder(tmp_path), ChatTemplate(None))
    with pytest.raises(ConfigError, match=r"has vocab\.json and merges\.txt, and no tokenizer\.json.*save_pretrained"):
        prompts.encode("text")
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json; download"):
        prompts.encode("text")
    assert prompts.encode([1, 2]).token_ids == [1, 2]
