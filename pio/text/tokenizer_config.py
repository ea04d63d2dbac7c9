"""What the small files beside ``tokenizer.json`` say: special tokens by name, and further tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from pio.errors import CheckpointError
from pio.loading.json_file import read_object
from pio.loading.model_file import find, shown

FILE: Final = "tokenizer_config.json"
MAX_CONFIG_BYTES = 16 << 20
OLDER_TOKENS: Final = "added_tokens.json"
"""File of older folders, and the key under which ``tokenizer_config`` puts what it holds."""
_OLDER_NAMES: Final = "special_tokens_map.json"
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Vocabularies that other programs read.
_OTHERS: Final = (
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "qwen.tiktoken",
    "tekken.json",
)
_EXTRA, _ADDITIONAL = "extra_special_tokens", "additional_special_tokens"


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return what ``tokenizer_config.json`` of a folder holds, ``{}`` without one.

    Where it lists no ``added_tokens_decoder``, as in older folders, ``special_tokens_map.json`` and
    ``added_tokens.json`` count too, as in transformers: the names of the former win, the latter is found under its
    own name. ``additional_special_tokens``, the older name, becomes ``extra_special_tokens``.

    Raises:
        CheckpointError: A file is too large or not a JSON object.
    """
    config = _read(folder, FILE) or {}
    _rename(config)
    if "added_tokens_decoder" in config:
        return config
    names = _read(folder, _OLDER_NAMES) or {}
    _rename(names, unless=_EXTRA in config)
    extra, more = config.get(_EXTRA), names.get(_EXTRA)
    config.update(names)
    if isinstance(extra, list) and isinstance(more, list):
        before = cast("list[Any]", extra)
        config[_EXTRA] = before + [token for token in cast("list[Any]", more) if token not in before]
    older = _read(folder, OLDER_TOKENS)
    return config if older is None else {**config, OLDER_TOKENS: older}


def without_tokenizer(folder: Path) -> str:
    """Return what to say of a folder without ``tokenizer.json``: what it has, and what to do."""
    others = [name for name in _OTHERS if (folder / name).is_file()]
    if not others:
        return f"{folder} has no tokenizer.json; download it again, or give prompts as lists of token ids"
    return (
        f"{folder} has {' and '.join(others)}, and no tokenizer.json, the only form of tokenizer that pio reads; "
        "transformers writes it: AutoTokenizer.from_pretrained(folder).save_pretrained(folder); or give prompts as "
        "lists of token ids"
    )


def special_tokens(config: dict[str, Any], where: str) -> dict[str, str]:
    """Return the named special tokens of a tokenizer config by name, the common names first.

    A name is common, ends in ``_token``, or is a key of ``extra_special_tokens``.

    Raises:
        CheckpointError: One of them is no text.
    """
    return {name: str(token["content"]) for name, token in named_tokens(config, where).items()}


def named_tokens(config: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Return ``special_tokens`` as added tokens: dicts with ``content`` and flags."""
    given: dict[str, Any] = {name: config.get(name) for name in _NAMED}
    given |= {
        name: value
        for name, value in config.items()
        if name.endswith("_token") and name not in _NAMED and isinstance(_content(value), str)
    }
    for key in ("model_specific_special_tokens", _EXTRA):
        if isinstance(config.get(key), dict):
            given |= cast("dict[str, Any]", config[key])
    found = {name: as_token(value, name, where) for name, value in given.items() if value not in (None, "")}
    return {name: token for name, token in found.items() if token["content"]}


def extra_tokens(config: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the special tokens without a name, as added tokens.

    Raises:
        CheckpointError: They are no list, or one is no text.
    """
    extra = config.get(_EXTRA)
    if extra is None or isinstance(extra, dict):
        return []
    if not isinstance(extra, list):
        raise CheckpointError(
            f"{where}: {_EXTRA} in {FILE} is {shown(extra)}, a list or an object was expected; download the file again"
        )
    return [as_token(value, _EXTRA, where) for value in cast("list[Any]", extra)]


def as_token(value: Any, name: str, where: str) -> dict[str, Any]:
    """Return an added token, written as its text or as an object with its flags.

    Raises:
        CheckpointError: It is neither.
    """
    content = _content(value)
    if not isinstance(content, str):
        raise CheckpointError(
            f"{where}: {name} in {FILE} is {shown(value)}, a string, or an object with one as content, was expected; "
            "download the file again"
        )
    return {**cast("dict[str, Any]", value), "content": content} if isinstance(value, dict) else {"content": content}


def _content(value: Any) -> Any:
    return cast("dict[str, Any]", value).get("content") if isinstance(value, dict) else value


def _read(folder: Path, name: str) -> dict[str, Any] | None:
    file = find(folder, name)
    return read_object(file, max_bytes=MAX_CONFIG_BYTES) if file is not None else None


def _rename(config: dict[str, Any], *, unless: bool = False) -> None:
    """Give additional special tokens the newer name, where nothing has it."""
    additional = config.pop(_ADDITIONAL, None)
    if additional is not None and not config.get(_EXTRA) and not unless:
        config[_EXTRA] = additional
