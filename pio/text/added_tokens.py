"""Added tokens: texts that are found before the vocabulary's own tokens, in ``tokenizer.json`` and beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from pio.errors import CheckpointError
from pio.loading.model_file import shown
from pio.text.tokenizer_config import FILE, OLDER_TOKENS, as_token, extra_tokens, named_tokens

if TYPE_CHECKING:
    import tokenizers

_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")
_LIST = re.compile(rb'"added_tokens"\s*:\s*(?=\[)')
_DECODER: Final = "added_tokens_decoder"


def check_stored(backend: tokenizers.Tokenizer, data: bytes, where: str) -> None:
    """Refuse a ``tokenizer.json`` whose added tokens got other ids than it says, which the library does in silence.

    Args:
        backend: What the library made of the file.
        data: The file.
        where: The file, for messages.

    Raises:
        CheckpointError: An id is taken by another token, or leaves a gap behind those before it.
    """
    place = _LIST.search(data)  # the list alone is parsed: the whole file is large
    tokens: list[dict[str, Any]] = [] if place is None else _value_at(data, place.end())
    _check_ids(backend, ((token["id"], token["content"]) for token in tokens), f"{where}: added_tokens")


def add_configured(backend: tokenizers.Tokenizer, config: dict[str, Any], where: str) -> None:
    """Add the tokens that a tokenizer config adds, with the ids that transformers gives them.

    Those of ``added_tokens_decoder`` (in older folders ``added_tokens.json``) come first, in the order of their ids,
    then special tokens with names, then those without. Each takes its id of the vocabulary, or the next free one. The
    flags of ``added_tokens_decoder`` win over those of ``tokenizer.json``, which win over all others; a token that is
    listed as special is special wherever it comes from.

    Args:
        backend: The tokenizer; it is changed.
        config: As ``tokenizer_config`` returns it.
        where: The file, for messages.

    Raises:
        CheckpointError: A token or an id has the wrong form, or the tokenizer gives a token another id than the one
            that is written.
    """
    listed, older = _listed(config, _DECODER, where), _listed(config, OLDER_TOKENS, where)
    special = [*named_tokens(config, where).values(), *extra_tokens(config, where)]
    names = {token["content"] for token in special}
    stored = {token.content: _fields(token) for token in backend.get_added_tokens_decoder().values()}
    wanted: dict[str, dict[str, Any]] = {}
    for _, token in older:
        wanted[token["content"]] = stored.get(token["content"]) or {"normalized": token["content"] not in names}
    for _, token in listed:
        wanted[token["content"]] = {"normalized": True, **token}
    for token in special:
        known = wanted.get(token["content"]) or stored.get(token["content"]) or {"normalized": False, **token}
        wanted[token["content"]] = {**known, "special": True}
    new = [_added_token(content, flags, where) for content, flags in wanted.items() if content]
    cast("Any", backend).add_tokens([token for token in new if stored.get(token.content) != _fields(token)])
    for key, tokens in ((_DECODER, listed), (OLDER_TOKENS, older)):
        name = f"{key} in {FILE}" if key == _DECODER else key
        _check_ids(backend, ((number, token["content"]) for number, token in tokens), f"{where}: {name}")


def _listed(config: Mapping[str, Any], key: str, where: str) -> list[tuple[int, dict[str, Any]]]:
    """Return tokens with their ids, in the order of the ids."""
    given: Any = config.get(key) or {}
    name = f"{where}: {key}"
    if not isinstance(given, dict):
        raise CheckpointError(f"{name} is {shown(given)}, an object was expected; download the file again")
    found: list[tuple[int, dict[str, Any]]] = []
    for left, right in cast("dict[str, Any]", given).items():
        number, token = (left, right) if key == _DECODER else (right, left)
        if not re.fullmatch(r"[0-9]{1,10}", str(number)) or isinstance(number, bool):
            raise CheckpointError(
                f"{name} holds the id {shown(number)}, a number was expected; download the file again"
            )
        found.append((int(number), as_token(token, key, where)))
    return sorted(found, key=lambda pair: pair[0])


def _added_token(content: str, flags: Mapping[str, Any], where: str) -> tokenizers.AddedToken:
    import tokenizers

    chosen = {name: flags[name] for name in _FLAGS if flags.get(name) is not None}
    for name, value in chosen.items():
        if not isinstance(value, bool):
            raise CheckpointError(
                f"{where}: the token {shown(content)} has {name}={shown(value)} in {FILE}, true or false was expected; "
                "download the file again"
            )
    return tokenizers.AddedToken(content, **chosen)


def _fields(token: tokenizers.AddedToken) -> dict[str, Any]:
    return {name: getattr(token, name) for name in _FLAGS}


def _check_ids(backend: tokenizers.Tokenizer, tokens: Iterable[tuple[int, str]], where: str) -> None:
    for number, content in tokens:
        found = backend.token_to_id(content)
        if content and found != number:
            owner = backend.id_to_token(number)
            why = f"that is the id of {shown(owner)}" if owner is not None else "ids before it are missing"
            raise CheckpointError(
                f"{where} gives the token {shown(content)} the id {number}, but it would be {found}: {why}; the files "
                "of this folder do not belong together, download them again"
            )


def _value_at(data: bytes, start: int) -> Any:
    """Return the JSON value of ``data`` that begins at ``start``."""
    size = 1 << 16
    while True:
        text = data[start : start + size].decode("utf-8", "ignore")  # it may end within a character
        try:
            return json.JSONDecoder().raw_decode(text)[0]
        except ValueError:
            if start + size >= len(data):
                raise
            size *= 8
