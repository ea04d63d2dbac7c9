"""Tokenizers and chat templates of real models do what transformers does; see make_text.py."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from make_text import HERE, MODELS, TEXTS, cases, conversations, digest, dropped, folder_of, vectors

from pio.errors import ConfigError
from pio.loading.chat_template import ChatTemplate
from pio.loading.detokenizer import Detokenizer
from pio.loading.tokenizer import Tokenizer

CHECKPOINTS = Path(os.environ.get("PIO_TEST_CHECKPOINTS") or HERE.parents[1] / "../shared/checkpoints")
WITH_TOKENIZER = [name for name, (_, has_tokenizer) in MODELS.items() if has_tokenizer]


def present(model: str) -> Path:
    folder = folder_of(model, CHECKPOINTS)
    if not folder.is_dir():
        pytest.skip(f"shared/checkpoints not present: {folder.name}")
    return folder


@cache
def stored(model: str) -> dict[str, Any]:
    return json.loads((HERE / "text" / f"{model}.json").read_text("utf-8"))


@cache
def tokenizer_of(folder: Path) -> Tokenizer:
    found = Tokenizer.from_folder(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("model", MODELS)
def test_every_case_is_stored(model: str) -> None:
    assert stored(model)["conversations"].keys() == cases(model).keys()
    assert len(stored(model).get("texts", TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("model", MODELS)
def test_conversations_render_as_transformers_renders_them(model: str) -> None:
    template = ChatTemplate.from_folder(present(model))
    for name, given in cases(model).items():
        expected = stored(model)["conversations"][name]
        if "error" in expected:
            with pytest.raises(ConfigError):
                template.render(**given)
            continue
        text = template.render(**given)
        assert (name, len(text), digest(text)) == (name, expected["characters"], expected["sha256"])


@pytest.mark.parametrize("model", ["demo", "qwen3-vl-2b"])
def test_conversations_of_which_a_template_leaves_something_out(model: str) -> None:
    template = ChatTemplate.from_folder(present(model))
    everything = conversations()
    names = dropped(model, everything)
    assert names
    for name in names:
        with pytest.raises(ConfigError, match=r"leaves out|no place for tools"):
            template.render(**everything[name])


@pytest.mark.parametrize("model", WITH_TOKENIZER)
def test_conversations_encode_and_decode_as_with_transformers(model: str) -> None:
    folder = present(model)
    template, tokenizer = ChatTemplate.from_folder(folder), tokenizer_of(folder)
    for name, given in cases(model).items():
        expected = stored(model)["conversations"][name]
        assert (name, tokenizer.encode(template.render(**given))) == (name, expected["ids"])
        assert digest(tokenizer.decode(expected["ids"], skip_special_tokens=True)) == expected["skipped"], name
        stream = Detokenizer(tokenizer)
        pieces = [*map(stream.push, expected["ids"]), stream.flush()]
        assert digest("".join(pieces)) == expected["skipped"], name


@pytest.mark.parametrize("model", WITH_TOKENIZER)
def test_awkward_texts(model: str) -> None:
    tokenizer = tokenizer_of(present(model))
    expected = stored(model)["texts"]
    assert [tokenizer.encode(text) for text in TEXTS] == expected
    assert tokenizer.encode_batch(TEXTS) == expected
    assert [digest(tokenizer.decode(ids)) for ids in expected] == stored(model)["decoded"]


@pytest.mark.parametrize("model", [name for name in WITH_TOKENIZER if name != "demo"])
def test_public_vectors_of_qwen2(model: str) -> None:
    tokenizer = tokenizer_of(present(model))
    found = vectors(CHECKPOINTS)
    assert len(found) == 47
    assert [tokenizer.encode(text) for text, _ in found] == [ids for _, ids in found]
    assert [digest(json.dumps(tokenizer.encode(text))) for text, _ in found] == stored(model)["vectors"]


@pytest.mark.parametrize("model", ["qwen3-0.6b", "qwen3-4b-instruct-2507", "qwen3-vl-2b"])
def test_template_file_and_template_in_the_config_are_one(model: str, tmp_path: Path) -> None:
    folder = present(model)
    (tmp_path / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
    assert ChatTemplate.from_folder(tmp_path).sources == ChatTemplate.from_folder(folder).sources


def test_parts_reach_a_model_whose_template_reads_text_alone() -> None:
    """transformers drops them: Qwen3's template writes an empty message. A prompt must not vanish."""
    template = ChatTemplate.from_folder(present("qwen3-0.6b"))
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    whole = template.render([{"role": "user", "content": "Hi there"}])
    assert template.render([{"role": "user", "content": parts}]) == whole
