"""Prompts: conversations of any client's objects become token ids, and an answer can be begun by the caller."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pio
from pio.errors import ConfigError
from pio.plugin.calls import check_conversation
from pio.plugin.prompts import Prompts
from pio.text.chat_template import ChatTemplate
from pio.text.encoded_prompt import EncodedPrompt
from pio.text.reasoning import Reasoning
from pio.text.tokenizer import Tokenizer

DEMO = Path(pio.__file__).parent / "demo"
USER = {"role": "user", "content": "Write a function."}
BEGUN = {"role": "assistant", "content": "def f("}


@dataclass
class Turn:
    role: str
    content: str


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts("demo", Tokenizer.from_folder(DEMO), ChatTemplate.from_folder(DEMO))


def test_message_objects(prompts: Prompts) -> None:
    turns = [Turn("user", "Write a function."), Turn("assistant", "def f(x): ..."), Turn("user", "Again.")]
    dicts = [{"role": turn.role, "content": turn.content} for turn in turns]
    assert prompts.encode(turns) == prompts.encode(dicts)
    assert prompts.fit(turns, 20) == turns[2:]
    check_conversation(turns)
    for wrong in ("Hi", [1, 2], USER, [SimpleNamespace(role="user")]):
        with pytest.raises(ConfigError, match="expected a list of dicts with role and content"):
            check_conversation(wrong)


def test_an_answer_that_is_begun(prompts: Prompts) -> None:
    encoded = prompts.encode([USER, BEGUN], continue_final_message=True)
    ids, reasoning = encoded.token_ids, encoded.reasoning
    assert prompts.tokenizer.decode(ids).endswith("<|im_start|>assistant\ndef f(")
    assert reasoning == Reasoning(inside=False)
    thinking = {"role": "assistant", "content": "<think>\nFirst"}
    assert prompts.encode([USER, thinking], continue_final_message=True).reasoning == Reasoning(inside=True)
    assert prompts.encode([{**USER, "content": "<think>"}, BEGUN], continue_final_message=True).reasoning == Reasoning()
    with pytest.raises(ConfigError, match="continue_final_message: only a list of messages can use this"):
        prompts.encode("def f(", continue_final_message=True)


def test_the_model_goes_on_with_it() -> None:
    with pio.load("demo") as model:
        text = model.apply_chat_template([USER, BEGUN], continue_final_message=True)
        assert text.endswith("def f(")
        ids = model.tokenize(text)
        wanted = model.generate(ids, max_new_tokens=5, temperature=0, ignore_eos=True).token_ids
        given = {"max_new_tokens": 5, "temperature": 0, "ignore_eos": True}
        assert model.generate([USER, BEGUN], continue_final_message=True, **given).token_ids == wanted
        assert model.generate([USER, BEGUN], **given).usage.prompt_tokens > len(ids)
        assert model.chat_completion([USER, BEGUN], continue_final_message=True, **given) == model.detokenize(wanted)


@pytest.mark.parametrize(
    "prompt",
    [("Hi", "cat.png"), ("Hi", b"bytes"), {"text": "Hi", "image": "cat.png"}, {"text": [1, 2], "video": ["a", "b"]}],
    ids=str,
)
def test_pictures_for_a_model_that_reads_text(prompt):
    with pio.load("demo") as model, pytest.raises(pio.ConfigError, match="it has pictures, and this model reads text"):
        model.infer(prompt)


class Known:
    """Reads pictures as what was given, and takes one token for each."""

    modalities, marks, mark_ids = ("image",), frozenset[str](), ()

    def __init__(self) -> None:
        self.read, self.placed = list[Any](), list[Any]()

    def prepare(self, source: Any) -> Any:
        self.read.append(source.value[-1])  # and not the text itself, which must be free to go
        return "read " + source.value

    def place(self, ids: Any, sources: Any, most: int) -> EncodedPrompt:
        self.placed.append([source.value for source in sources])
        return EncodedPrompt([1] * len(sources))


def test_a_picture_that_is_known_is_not_taken_for_another() -> None:
    """Texts of pictures are made anew each time, and may lie where those before them lay."""
    media: Any = Known()
    prompts, known = Prompts("", None, ChatTemplate(None), media=media), dict[Any, Any]()
    for first in range(40):
        images = [{"base64": f"{i:04}"} for i in range(first, 40)]
        prompts._see(media, {"text": [1], "images": images}, 100, known)
        assert media.placed[-1] == [f"read data:;base64,{i:04}" for i in range(first, 40)]
    odd = {"text": [1], "images": [{"image": "a", "max_pixels": 1}, {"image": "a", "max_pixels": 2}]}
    media.read.clear()
    for _ in range(2):
        prompts._see(media, odd, 100, known)
    assert media.read == ["a", "a"], "what is said beside a picture makes it another"
