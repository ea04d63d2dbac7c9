"""What must be looked at in a ``tokenizer.json`` because the `tokenizers` library would not survive it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from pio.errors import CheckpointError
from pio.loading.json_file import parse_object
from pio.loading.model_file import shown

if TYPE_CHECKING:
    import tokenizers

MAX_GROWTH: Final = 64
MAX_VOCABULARY: Final = 1 << 24
_MAX_VALUES = 8_000_000
# A prefix that is not empty, or a letter of a key written as an escape, which no tool that saves tokenizers does. Two
# patterns, for one that begins with a letter for certain is found ten times as fast as either of two.
_PREFIXED: Final = (
    re.compile(rb'continuing_subword_prefix"\s*:\s*"[^"]'),
    re.compile(rb"\\u00(?:5[fF]|6[1-9a-fA-F]|7[0-9aA])"),
)


def check_file(data: bytes, where: str) -> None:
    """Refuse merges that the library would cut within a character, which aborts the whole process.

    With a prefix for word continuations, it takes as many bytes as the prefix has off the second half of each merge
    without looking at them. Files without such a prefix, which is every byte-level one, are not parsed here.

    Args:
        data: What ``tokenizer.json`` holds.
        where: The file, for messages.

    Raises:
        CheckpointError: A second half does not begin with the prefix, or the file is no JSON object.
    """
    if not any(pattern.search(data) for pattern in _PREFIXED):
        return
    model: Any = parse_object(data, where, max_values=_MAX_VALUES).get("model")
    if not isinstance(model, dict):
        return
    fields = cast("dict[str, Any]", model)
    prefix, merges = fields.get("continuing_subword_prefix"), fields.get("merges")
    if not isinstance(prefix, str) or not isinstance(merges, list):
        return
    for merge in cast("list[Any]", merges):
        halves = merge.split(" ") if isinstance(merge, str) else merge
        second: Any = cast("list[Any]", halves)[-1] if isinstance(halves, list) and halves else None
        if not isinstance(second, str) or not second.startswith(prefix):
            raise CheckpointError(
                f"{where}: the merge {shown(cast('object', merge))} does not continue with "
                f"continuing_subword_prefix {shown(prefix)}; download the file again"
            )


def check_growth(backend: tokenizers.Tokenizer, where: str) -> None:
    """Refuse replacements that could make a text many times as long.

    Args:
        backend: The loaded tokenizer.
        where: The file, for messages.

    Raises:
        CheckpointError: Applied one after the other, its replacements make more than 64 characters of one.
    """
    growth = 1.0
    for part in (backend.normalizer, backend.pre_tokenizer, backend.decoder):
        if part is None:
            continue
        for node in _nodes(json.loads(part.__getstate__())):
            if node.get("type") == "Prepend":
                growth *= max(1, len(str(node.get("prepend"))))
            elif node.get("type") == "Replace":
                pattern, content = node.get("pattern"), len(str(node.get("content")))
                text = cast("dict[str, Any]", pattern).get("String") if isinstance(pattern, dict) else None
                growth *= max(1.0, content / len(text) if isinstance(text, str) and text else 1 + content)
    if growth > MAX_GROWTH:
        raise CheckpointError(
            f"{where}: its replacements could make a text {growth:.3g} times as long, at most {MAX_GROWTH} times was "
            "expected; do not use this folder unless you trust its source"
        )


def check_vocabulary(backend: tokenizers.Tokenizer, where: str) -> int:
    """Return one more than the highest token id.

    Raises:
        CheckpointError: There is no token, an id is too large to be true, or two tokens have one id.
    """
    count = backend.get_vocab_size(with_added_tokens=True)  # some tokens may be counted twice, none is left out
    if 0 < count <= MAX_VOCABULARY and type(backend.model).__name__ == "BPE":
        if None not in map(backend.id_to_token, range(count)):
            return count  # so many ids have a token, and there are no more tokens: no two have one id
    vocabulary = backend.get_vocab(with_added_tokens=True)
    size = 1 + max(vocabulary.values(), default=-1)
    if not 0 < size <= MAX_VOCABULARY:
        raise CheckpointError(
            f"{where} has token ids up to {size - 1}; 0 to {MAX_VOCABULARY - 1} were expected, download the file again"
        )
    if len(set(vocabulary.values())) < len(vocabulary):
        first: dict[int, str] = {}
        number, one, other = next(
            (number, first[number], token)
            for token, number in sorted(vocabulary.items())
            if first.setdefault(number, token) != token
        )
        raise CheckpointError(
            f"{where} gives {shown(one)} and {shown(other)} the same id {number}; download the file again"
        )
    return size


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object within a value; the library itself bounds how deep they nest."""
    if isinstance(value, dict):
        yield cast("dict[str, Any]", value)
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _nodes(item)
