"""The training text of the demo model: nothing is lost, held-out files stay out, answers are Python."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import sys
from pathlib import Path
from types import ModuleType

PATH = Path(__file__).parent.parent / "tools" / "demo" / "corpus.py"
SOURCE = '''
class Basket:
    def total(self, prices, rate):
        """Return the sum of the prices with tax.

        More about it.
        """
        return sum(prices) * rate

    def __len__(self):
        """Return how many prices there are in it."""
        return 0


def short():
    """Too short."""
'''


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_corpus", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_corpus"] = module
    spec.loader.exec_module(module)
    return module


corpus = load()


def test_requests_ask_for_documented_functions_and_answer_with_their_source() -> None:
    thoughts = set()
    for seed in range(40):
        (chat,) = corpus.requests(SOURCE, random.Random(seed))
        assert "Return the sum of the prices with tax." in chat and "total" in chat and "More about it" in chat
        user, assistant = chat.split("<|im_end|>\n")[:2]
        assert user.startswith("<|im_start|>user\n") and assistant.startswith("<|im_start|>assistant\n<think>\n")
        code = re.search(r"```python\n(.*)\n```", assistant, re.DOTALL)
        assert code and ast.parse(code[1]).body[0].name == "total"
        thought = assistant.split("<think>")[1].split("</think>")[0]
        assert ("/no_think" not in user) if thought.strip() else ("/think" not in user)
        thoughts.add(bool(thought.strip()))
    assert thoughts == {True, False}
    assert list(corpus.requests("def broken(", random.Random(0))) == []


def test_holes_put_the_middle_behind_what_surrounds_it() -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(30_000))
    made = list(corpus.holes(text, random.Random(3)))
    assert len(made) == 2
    for document in made:
        found = re.fullmatch(r"<\|fim_prefix\|>(.*)<\|fim_suffix\|>(.*)<\|fim_middle\|>(.*)<\|endoftext\|>", document)
        assert found and len(found[3]) <= 400
        assert found[1] + found[3] + found[2] in text


def test_seams_lose_nothing_and_spare_special_tokens() -> None:
    document = ("x = 1\n" * 300 + "<|im_end|>\n") * 9
    pieces = list(corpus.at_seams(document, random.Random(5)))
    assert "".join(pieces) == document and 10 < len(pieces) < 200
    assert sum(piece.count("<|im_end|>") for piece in pieces) == 9
    assert list(corpus.at_seams("", random.Random(5))) == [""]


def test_held_out_files_are_not_trained_on() -> None:
    files = corpus.standard_library()
    assert len(files) > 300 and not [f for f in files if f.path.startswith(("idlelib/", "test/"))]
    train, held_out = corpus.split(files, random.Random(0))
    assert len(files) - len(train) == len(files) // 30
    assert 10_000 < len(held_out) <= corpus.HELD_OUT_LENGTH
    assert not [f for f in train if f.text in held_out]
    assert corpus.split(files, random.Random(0)) == (train, held_out)
