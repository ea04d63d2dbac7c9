"""One small tokenizer of each kind that models come with, all with awkward added tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from pio.text.tokenizer import Tokenizer

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "naïve façade, Äpfel und Öl; don't stop!",
    "def area(width, height):\n    return width * height\n",
    "日本語のテキスト 👍 <tag> and |bars| end",
]
ADDED = [
    AddedToken("<|im_end|>", special=True),
    AddedToken("<｜User｜>", special=True),  # full-width bars, as DeepSeek writes them
    AddedToken("<é>", special=True),  # each letter is one of the byte-level alphabet
    AddedToken("<think>"),
    AddedToken("naïveté", normalized=False),
    AddedToken("▁mark▁", normalized=False),
    AddedToken("<left>", special=True, lstrip=True),
    AddedToken("<right>", special=True, rstrip=True),
    AddedToken("<word>", single_word=True, normalized=False),
    AddedToken("\t\t", normalized=False),
]
TEXTS = [token.content for token in ADDED]


def _byte_level() -> tokenizers.Tokenizer:
    backend: Any = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return backend


def _wordpiece() -> tokenizers.Tokenizer:
    letters = sorted(set("".join(CORPUS)) - {" ", "\n"})
    pieces = ["[UNK]", *letters, *(f"##{letter}" for letter in letters), "the", "fox", "##mps", "don"]
    model = models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    backend: Any = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return backend


def _unigram() -> tokenizers.Tokenizer:
    letters = sorted(set("".join(CORPUS)) - {" "})
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((letter, -4.0) for letter in letters), ("▁the", -3.0), ("ump", -5.0)]
    backend: Any = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return backend


def _byte_fallback() -> tokenizers.Tokenizer:
    """A vocabulary as Llama 2's: spaces are ▁, unknown characters are bytes, the first space goes."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "t", "h", "e", "th", "▁the", "▁t", "he", "�"]
    vocabulary = {token: number for number, token in enumerate(words)}
    merges = [("t", "h"), ("h", "e"), ("▁", "t")]
    backend: Any = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


MAKERS = {
    "byte-level": _byte_level,
    "wordpiece": _wordpiece,
    "unigram": _unigram,
    "byte-fallback": _byte_fallback,
}


@cache
def _stored(kind: str) -> str:
    return MAKERS[kind]().to_str()


def bare(kind: str) -> Any:
    """Return one of them for the library, without added tokens."""
    return tokenizers.Tokenizer.from_str(_stored(kind))


@cache
def small(kind: str) -> Tokenizer:
    """Return one of them."""
    backend = bare(kind)
    backend.add_tokens(ADDED)
    return Tokenizer(backend, {}, vocab_size=backend.get_vocab_size() + 3)
