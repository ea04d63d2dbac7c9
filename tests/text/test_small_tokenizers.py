"""Tokenizers of every kind: streams, bytes and added tokens of any letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import ADDED, CORPUS, MAKERS, TEXTS, small

from pio.text.detokenizer import Detokenizer

texts = st.lists(st.sampled_from([*TEXTS, *CORPUS, " ", "\n", "<", "é", "日", "👍"]) | st.text(max_size=5), max_size=8)
valid = texts.map("".join).filter(lambda text: text.isprintable() or not any("\ud800" <= c <= "\udfff" for c in text))


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data(), skip=st.booleans())
def test_pieces_make_the_whole(kind: str, data: st.DataObject, skip: bool) -> None:
    tokenizer = small(kind)
    added = st.integers(tokenizer.size - len(ADDED), tokenizer.size - 1)
    ids = data.draw(st.lists(st.integers(0, tokenizer.limit - 1) | added, max_size=30))
    stream = Detokenizer(tokenizer, skip_special_tokens=skip)
    pieces = [*map(stream.push, ids), stream.flush()]
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip)


# Where a space is written ▁, it is so in added tokens too, as in transformers.
@pytest.mark.parametrize(
    ("kind", "token"), [(kind, token) for kind in MAKERS for token in TEXTS if "▁" not in token or kind == "byte-level"]
)
def test_added_tokens_are_text(kind: str, token: str) -> None:
    tokenizer = small(kind)
    (number,) = tokenizer.encode(token)
    assert number == tokenizer.token_to_id(token)
    assert tokenizer.decode([number]) == token == Detokenizer(tokenizer, skip_special_tokens=False).push(number)
    assert tokenizer.token_bytes(number).decode().strip(" ") == token


@given(valid)
def test_texts_come_back_from_bytes(text: str) -> None:
    tokenizer = small("byte-level")
    ids = tokenizer.encode(text)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["unigram", "byte-fallback"])
@given(text=valid)
def test_bytes_are_the_answer_but_for_its_first_spaces(kind: str, text: str) -> None:
    tokenizer = small(kind)
    ids = tokenizer.encode(text.replace("▁", ""))
    joined, decoded = b"".join(map(tokenizer.token_bytes, ids)).decode(), tokenizer.decode(ids)
    assert joined.endswith(decoded) and not joined[: len(joined) - len(decoded)].strip(" ")


def test_bytes_of_byte_fallback() -> None:
    tokenizer = small("byte-fallback")
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "日".encode()]
    assert [tokenizer.token_bytes(number) for number in ids if number is not None] == [b"\xe6", b"\x97", b"\xa5"]
    newline, space = tokenizer.token_to_id("<0x0A>"), tokenizer.token_to_id("▁the")
    assert newline is not None and tokenizer.token_bytes(newline) == b"\n"
    assert space is not None and tokenizer.token_bytes(space) == b" the"


def test_bytes_of_words() -> None:
    tokenizer = small("wordpiece")
    first, further = tokenizer.token_to_id("t"), tokenizer.token_to_id("##h")
    assert first is not None and tokenizer.token_bytes(first) == b" t"
    assert further is not None and tokenizer.token_bytes(further) == b"h"
