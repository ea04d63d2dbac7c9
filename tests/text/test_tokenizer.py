"""The tokenizer wrapper: ids, special tokens, errors and threads."""

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from own_signals import send
from tokenizers import decoders, models, pre_tokenizers

from pio.errors import CheckpointError, ConfigError, PioError
from pio.text.tokenizer import Tokenizer
from pio.text.tokenizer_config import special_tokens

DEMO = Path(__file__).parents[2] / "pio" / "demo"
VOCABULARY = {"[UNK]": 0, "hello": 1, "world": 2, ",": 3, "'s": 4, "<eos>": 5}


def demo(**options: Any) -> Tokenizer:
    found = Tokenizer.from_folder(DEMO, **options)
    assert found is not None
    return found


def write(folder: Path, backend: tokenizers.Tokenizer, **config: Any) -> Path:
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def words() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def loaded(folder: Path) -> Tokenizer:
    found = Tokenizer.from_folder(folder)
    assert found is not None
    return found


def test_demo_tokens_and_names() -> None:
    tokenizer = demo()
    assert (tokenizer.size, tokenizer.limit, tokenizer.is_byte_level) == (4096, 4096, True)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert tokenizer.special_ids == frozenset(range(16))
    assert tokenizer.token_to_id("<think>") == 3
    assert tokenizer.token_to_id("no such token") is None
    assert tokenizer.id_to_token(2) == "<|im_end|>"


def test_text_comes_back() -> None:
    tokenizer = demo()
    text = "def f(x):\n\treturn 'naïve 日本 👩‍👧' \r\n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_every_byte_has_a_token_of_its_own() -> None:
    tokenizer = demo()
    singles = {tokenizer.token_bytes(number) for number in range(16, tokenizer.size)}
    assert {bytes([byte]) for byte in range(256)} <= singles


def test_special_tokens_are_left_out_on_demand() -> None:
    tokenizer = demo()
    ids = [1, *tokenizer.encode("a"), 3, *tokenizer.encode("b"), 4, 2]
    assert tokenizer.decode(ids) == "<|im_start|>a<think>b</think><|im_end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"
    assert tokenizer.decode(ids, skip_special_tokens=True, keep=tokenizer.reasoning_ids) == "a<think>b</think>"


def test_ids_of_the_model_that_have_no_token_decode_to_nothing() -> None:
    tokenizer = demo(vocab_size=5000)
    assert (tokenizer.size, tokenizer.limit) == (4096, 5000)
    ids = tokenizer.encode("one")
    assert tokenizer.decode([4096, *ids, 4999]) == "one"
    assert tokenizer.token_bytes(4999) == b""


@pytest.mark.parametrize("number", [-1, 4096, 2**40, True, 1.0, "1", None])
def test_ids_outside_the_vocabulary(number: Any) -> None:
    tokenizer = demo()
    for use in (tokenizer.decode, lambda ids: tokenizer.token_bytes(ids[0])):
        with pytest.raises(ConfigError, match=r"0 to 4095") as error:
            use([number])
        assert str(number) in str(error.value)


def test_ids_may_be_any_integer_type() -> None:
    numpy = pytest.importorskip("numpy")
    tokenizer = demo()
    ids = tokenizer.encode("print")
    assert tokenizer.decode(numpy.asarray(ids, dtype=numpy.int32)) == "print"


@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_text_must_be_str(text: Any) -> None:
    with pytest.raises(ConfigError, match="str"):
        demo().encode(text)


def test_lone_surrogates_are_named() -> None:
    with pytest.raises(ConfigError, match=r"U\+D83D, at character 3"):
        demo().encode("abc\ud83d")
    with pytest.raises(ConfigError, match=r"texts\[1\]"):
        demo().encode_batch(["a", "\udc00"])


def test_batches() -> None:
    tokenizer = demo()
    texts = ["", "a b", "import sys\n"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    with pytest.raises(ConfigError, match="one str"):
        tokenizer.encode_batch("abc")


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    assert Tokenizer.from_folder(tmp_path) is None


def test_a_named_special_token_becomes_special(tmp_path: Path) -> None:
    tokenizer = loaded(write(tmp_path, words(), eos_token={"content": "<eos>"}, bos_token="<not in vocabulary>"))
    assert tokenizer.special_ids == {5, 6}
    assert tokenizer.size == 7
    assert tokenizer.encode("hello<eos><not in vocabulary>") == [1, 5, 6]
    assert tokenizer.special_tokens == {"eos_token": "<eos>", "bos_token": "<not in vocabulary>"}


def test_stored_truncation_and_padding_are_ignored(tmp_path: Path) -> None:
    backend = words()
    backend.enable_truncation(1)
    backend.enable_padding(length=9)
    assert loaded(write(tmp_path, backend)).encode("hello world") == [1, 2]


def test_spaces_are_cleaned_where_transformers_cleans_them(tmp_path: Path) -> None:
    tokenizer = loaded(write(tmp_path, words(), clean_up_tokenization_spaces=True))
    assert tokenizer.decode([1, 3, 2, 4]) == "hello, world's"
    byte_level = tokenizers.Tokenizer(models.BPE({"a": 0, "Ġ": 1, ",": 2}, []))
    byte_level.decoder = decoders.ByteLevel()
    tokenizer = loaded(write(tmp_path, byte_level, clean_up_tokenization_spaces=True))
    assert tokenizer.decode([0, 1, 2]) == "a ,"  # never for BPE, whatever the config says


def test_split_special_tokens(tmp_path: Path) -> None:
    assert loaded(write(tmp_path, words(), eos_token="<eos>", split_special_tokens=True)).encode("hello<eos>") == [0]


def test_fields_without_effect_are_accepted(tmp_path: Path) -> None:
    fields = {"fix_mistral_regex": True, "add_bos_token": True, "tokenizer_class": "LlamaTokenizer", "legacy": False}
    assert loaded(write(tmp_path, words(), **fields)).encode("hello world") == [1, 2]  # as in transformers 5


def test_special_token_of_a_wrong_type() -> None:
    with pytest.raises(CheckpointError, match=r"somewhere: eos_token .* 7"):
        special_tokens({"eos_token": 7}, "somewhere")


def test_many_threads_at_once() -> None:
    tokenizer = demo()
    texts = [f"def name_{i}(x): return {i} * 'é日{i}'\n" * (i % 7 + 1) for i in range(60)]
    expected = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(12) as pool:
        for _ in range(5):
            assert list(pool.map(tokenizer.encode, texts)) == expected
            assert list(pool.map(tokenizer.decode, expected)) == texts


def test_errors_of_the_library_are_typed(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    tokenizer = loaded(write(tmp_path, backend))
    with pytest.raises(PioError, match=r"tokenizer\.json"):
        tokenizer.encode("b")


def test_long_texts_are_encoded_like_short_ones(tmp_path: Path) -> None:
    tokenizer = demo()
    line = "def naïve(x): return '日本'\n"
    assert tokenizer.encode(line * 2000) == tokenizer.encode(line) * 2000
    assert tokenizer.encode(line * 2000, literal=True) == tokenizer.encode(line) * 2000
    spaced = loaded(write(tmp_path, words()))
    ids = [1, 2] * 5000
    assert spaced.encode("hello world " * 5000) == ids
    assert spaced.decode(ids) == " ".join(["hello world"] * 5000)


def test_ctrl_c_ends_the_wait_for_a_long_text() -> None:
    """It comes from a thread of Python, so this also says that other threads run meanwhile."""
    tokenizer = demo()
    text = "def f(x): return x + 1\n" * 100_000
    before, over, started = set(threading.enumerate()), threading.Event(), threading.Event()

    def interrupt() -> None:
        while not over.is_set():
            running = [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
            if len(running) > 1:  # this one, and the one that encodes
                started.set()
                send(signal.SIGINT)
                return

    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            tokenizer.encode(text)
        encoding = set(threading.enumerate()) - before - {helper}
        assert encoding and started.is_set()
    finally:
        over.set()
        helper.join(60)
    for thread in encoding:
        thread.join(60)
        assert not thread.is_alive()
    assert tokenizer.decode(tokenizer.encode("again")) == "again"


def test_added_tokens_of_byte_level_tokenizers_are_text() -> None:
    """The library reads all tokens by the byte-level alphabet when it decodes, added ones too."""
    backend = tokenizers.Tokenizer(models.BPE({"a": 0, "Ġ": 1, "é": 2, "Ġa": 3, "Ã": 4, "©": 5}, [("Ġ", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["naïve", "<｜User｜>"])
    backend.add_tokens(["Ġa"])
    tokenizer = Tokenizer(backend, {})
    assert tokenizer.encode("anaïve<｜User｜> a") == [0, 6, 7, 3]
    assert tokenizer.decode([0, 6, 7, 3]) == "anaïve<｜User｜> a"
    assert tokenizer.token_bytes(6) == "naïve".encode()
    assert tokenizer.token_bytes(3) == b" a"  # the vocabulary makes it of ordinary text
    assert tokenizer.token_bytes(2) == b"\xe9"
