"""Reasoning and answer, whole and streamed."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.text.chat_template import ChatTemplate
from pio.text.reasoning import Reasoning, ReasoningSplitter, opens_reasoning

WHOLE = [
    ("plain answer\n", False, None, "plain answer\n"),
    ("<think>\n17 × 23\n</think>\n\n391", False, "17 × 23", "391"),
    ("<think>\n\n</think>\n\nshort", False, None, "short"),
    ("\n <think>a</think>b", False, "a", "b"),
    ("a</think>b", True, "a", "b"),
    ("\n\na\n b\n\n</think>\n c \n", True, "a\n b", " c \n"),
    ("<think>\na</think>b", True, "a", "b"),
    ("never ends\n", True, "never ends", ""),
    ("<think>never ends </thin", False, "never ends </thin", ""),
    ("says <think> later</think>", False, None, "says <think> later</think>"),
    ("<think>a</think>b<think>c</think>", False, "a", "b<think>c</think>"),
    ("<think>a</think>", False, "a", ""),
    ("<thin", False, None, "<thin"),
    ("\n\n", False, None, "\n\n"),
    ("<think>a < b </ c</think>d", False, "a < b </ c", "d"),
    ("<think> a </think> b", False, " a ", " b"),
    ("", False, None, ""),
    ("", True, "", ""),
    ("<think>", False, "", ""),
    ("\n<think>\n\n", False, "", ""),
    ("\n", True, "", ""),
    ("</think>", True, None, ""),
    ("<</think>x", True, "<", "x"),
    ("a</think</think>x", True, "a</think", "x"),
]


def naive(text: str, inside: bool) -> tuple[str | None, str, str]:
    """Reasoning, answer and where the text ends, by looking at the whole of it."""
    block = re.match(r"\s*<think>", text)
    if block is None and not inside:
        return None, text, "answer"
    reasoning, tag, rest = text[block.end() if block else 0 :].partition("</think>")
    reasoning, answer = reasoning.strip("\n"), rest.lstrip("\n")
    end = "answer" if answer else "gap" if tag else "reasoning"
    return (None if tag and not reasoning else reasoning), answer, end


def streamed(parts: list[str], inside: bool) -> tuple[str | None, str, str]:
    splitter = Reasoning(inside=inside).splitter()
    found = {"reasoning": "", "text": "", "markup": ""}
    written = ""
    for kind, piece in [pair for part in parts for pair in splitter.push(part)] + splitter.flush():
        assert piece
        assert kind == "text" or not found["text"]  # never back to reasoning
        found[kind] += piece
        written += piece
    assert written == "".join(parts)
    assert re.sub(r"</?think>|\s", "", found["markup"]) == ""
    assert splitter.inside == (splitter.state == "reasoning")
    return found["reasoning"] or ("" if splitter.inside else None), found["text"], splitter.state


@pytest.mark.parametrize(("text", "inside", "reasoning", "answer"), WHOLE)
def test_whole(text: str, inside: bool, reasoning: str | None, answer: str) -> None:
    assert naive(text, inside)[:2] == (reasoning, answer)
    assert streamed([text], inside)[:2] == (reasoning, answer)


@pytest.mark.parametrize(("text", "inside", "reasoning", "answer"), WHOLE)
def test_character_by_character(text: str, inside: bool, reasoning: str | None, answer: str) -> None:
    assert streamed(list(text), inside)[:2] == (reasoning, answer)


PARTS = st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think>", "</thi", "\n", " ", "a", "\n\n", "é", ""]))


@given(PARTS, st.booleans())
def test_any_cut(parts: list[str], inside: bool) -> None:
    whole = naive("".join(parts), inside)
    assert streamed(parts, inside) == whole
    assert streamed(list("".join(parts)), inside) == whole


@pytest.mark.parametrize(
    ("text", "inside", "end"),
    [
        ("<think>a", False, "reasoning"),
        ("<think>\n", False, "reasoning"),
        ("a", True, "reasoning"),
        ("", True, "reasoning"),
        ("a</think>", True, "gap"),
        ("<think>\n\n</think>\n\n", False, "gap"),
        ("<think>a</think>\n\nb", False, "answer"),
        ("<thi", False, "answer"),
        ("", False, "answer"),
    ],
)
def test_where_a_text_ends(text: str, inside: bool, end: str) -> None:
    assert streamed([text], inside)[2] == naive(text, inside)[2] == end


@pytest.mark.parametrize(
    ("prompt", "template", "inside", "expected"),
    [
        ("<|im_start|>assistant\n<think>\n", "{{ '<think>\n' }}", True, True),
        ("<|im_start|>assistant\n", "{% if x %}<think>\n\n</think>{% endif %}", False, True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "<think>\n\n</think>", False, False),
        ("<|assistant|></think>", "</think>", False, False),
        ("<|im_start|>assistant\n", "{{ messages }}", False, False),
    ],
)
def test_a_model_may_think_where_its_template_knows_of_it(
    prompt: str, template: str, inside: bool, expected: bool
) -> None:
    found = Reasoning.of(prompt, ["", template])
    assert (found.inside, found.possible) == (inside, expected)


REAL = {  # inside and expected, by default and with enable_thinking=False
    "glm-4.7-flash": [(True, True), (False, False)],
    "qwen3-0.6b": [(False, True), (False, False)],
    "qwen3-4b-instruct-2507": [(False, False), (False, False)],
    "qwen3-coder-30b-a3b-instruct": [(False, False), (False, False)],
    "qwen3-coder-next": [(False, False), (False, False)],
}


@pytest.mark.parametrize("name", REAL)
def test_which_real_models_think(name: str) -> None:
    folder = Path(__file__).parents[2] / ".." / "shared" / "checkpoints" / name
    if not folder.is_dir():
        pytest.skip("../shared/checkpoints is not there")
    template = ChatTemplate.from_folder(folder)
    for variables, (inside, expected) in zip(({}, {"enable_thinking": False}), REAL[name], strict=True):
        prompt = template.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True, **variables)
        found = Reasoning.of(prompt, template.sources.values())
        assert (found.inside, found.possible) == (inside, expected)


def test_answer_is_not_held_back() -> None:
    splitter = ReasoningSplitter()
    assert splitter.push("a<thi") == [("text", "a<thi")]
    assert splitter.push("\n") == [("text", "\n")]


def test_reasoning_is_held_back_no_longer_than_needed() -> None:
    splitter = ReasoningSplitter(inside=True)
    assert splitter.push("ab") == [("reasoning", "ab")]
    assert splitter.push("\n</t") == []
    assert splitter.push("est") == [("reasoning", "\n</test")]


def test_tags_and_the_line_ends_around_are_markup() -> None:
    splitter = ReasoningSplitter()
    assert splitter.push("\n <think>\n") == [("markup", "\n <think>\n")]
    assert splitter.push("\na\n") == [("markup", "\n"), ("reasoning", "a")]
    assert splitter.push("</think>\n") == [("markup", "\n</think>\n")]
    assert splitter.push("\nb") == [("markup", "\n"), ("text", "b")]
    assert splitter.flush() == []


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [("<|im_start|>assistant\n<think>\n", True), ("<think>\n\n</think>\n\n", False), ("", False), ("<think>a", False)],
)
def test_prompt_opens_reasoning(prompt: str, opens: bool) -> None:
    assert opens_reasoning(prompt) is opens
