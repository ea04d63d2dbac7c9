"""Streaming text: the pieces are the whole, and no piece ends within a character."""

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from pio.errors import ConfigError
from pio.text.detokenizer import Detokenizer
from pio.text.tokenizer import Tokenizer

DEMO = Tokenizer.from_folder(Path(__file__).parents[2] / "pio" / "demo", vocab_size=4100)
assert DEMO is not None
BYTES = {DEMO.token_bytes(number): number for number in range(DEMO.size)}


def pieces(tokenizer: Tokenizer, ids: list[int], **options: object) -> list[str]:
    stream = Detokenizer(tokenizer, **options)  # type: ignore[arg-type]
    return [*map(stream.push, ids), stream.flush()]


def bytewise(text: bytes) -> list[int]:
    return [BYTES[bytes([byte])] for byte in text]


def test_characters_of_several_tokens_come_whole() -> None:
    assert pieces(DEMO, bytewise("é👍a".encode())) == ["", "é", "", "", "", "👍", "a", ""]


def test_bytes_that_are_no_text_come_as_soon_as_that_is_certain() -> None:
    assert pieces(DEMO, bytewise(b"\xff\xe2\x82x\xf0\x9f")) == ["�", "", "", "�x", "", "", "�"]


def test_a_replacement_character_of_the_model_is_text() -> None:
    assert pieces(DEMO, bytewise("�".encode())) == ["", "", "�", ""]


def test_special_tokens() -> None:
    ids = [1, *DEMO.encode("a"), 3, 4, 2]
    assert pieces(DEMO, ids) == ["", "a", "", "", "", ""]
    assert pieces(DEMO, ids, keep={3, 4}) == ["", "a", "<think>", "</think>", "", ""]
    assert "".join(pieces(DEMO, ids, skip_special_tokens=False)) == "<|im_start|>a<think></think><|im_end|>"


def test_a_skipped_token_does_not_cut_a_character() -> None:
    first, second = bytewise("é".encode())
    assert pieces(DEMO, [first, 2, second]) == ["", "", "é", ""]


def test_ids_without_a_token_and_outside() -> None:
    stream = Detokenizer(DEMO)
    assert stream.push(4099) == ""
    with pytest.raises(ConfigError, match="0 to 4099"):
        stream.push(4100)


@given(st.lists(st.integers(0, 4099) | st.integers(0, 300), max_size=60), st.booleans())
def test_pieces_make_the_whole(ids: list[int], skip: bool) -> None:
    found = pieces(DEMO, ids, skip_special_tokens=skip)
    assert "".join(found) == DEMO.decode(ids, skip_special_tokens=skip)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_valid_text_never_shows_a_replacement(text: str) -> None:
    shown = ""
    for piece in pieces(DEMO, bytewise(text.encode())):
        shown += piece
        assert text.startswith(shown)
    assert shown == text


def sentencepiece() -> Tokenizer:
    """A vocabulary as Llama 2's: a space is ▁, unknown characters are bytes, the first space goes."""
    tokens = ["<unk>", "▁", "▁Hello", "▁world", "!", "a", "▁b", "�", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend, {}, vocab_size=300)


def wordpiece() -> Tokenizer:
    tokens = ["[UNK]", "Hello", "wor", "##ld", ",", ".", "'", "s", "n't", "'s", "'re", "?", "##s", "a"]
    backend = tokenizers.Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece(cleanup=False)
    return Tokenizer(backend, {"clean_up_tokenization_spaces": True})


SENTENCEPIECE, WORDPIECE = sentencepiece(), wordpiece()


def test_leading_space_is_dropped_once() -> None:
    assert pieces(SENTENCEPIECE, [2, 3, 4, 6]) == ["Hello", " world", "!", " b", ""]


def test_runs_of_byte_tokens_wait_for_their_end() -> None:
    euro = [8 + byte for byte in "€".encode()]
    assert pieces(SENTENCEPIECE, [5, *euro, 5]) == ["a", "", "", "", "€a", ""]
    # One wrong byte makes the decoder give up the whole run, so that nothing of it may go out before.
    assert pieces(SENTENCEPIECE, [5, *euro, 8 + 0xFF, 5]) == ["a", "", "", "", "", "����a", ""]


@given(st.lists(st.integers(0, 299) | st.integers(0, 7), max_size=40))
def test_pieces_make_the_whole_with_byte_fallback(ids: list[int]) -> None:
    assert "".join(pieces(SENTENCEPIECE, ids)) == SENTENCEPIECE.decode(ids)


@given(st.lists(st.integers(0, 13), max_size=40))
def test_pieces_make_the_whole_where_spaces_are_cleaned(ids: list[int]) -> None:
    assert "".join(pieces(WORDPIECE, ids)) == WORDPIECE.decode(ids)
