"""Reasoning and answer, whole and streamed."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.text.chat_template import ChatTemplate
from pio.text.reasoning import AnswerFinder, Reasoning, ReasoningSplitter, opens_reasoning

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


@pytest.mark.parametrize(("text", "inside", "reasoning", "answer"), WHOLE)
def test_whole(text: str, inside: bool, reasoning: str | None, answer: str) -> None:
    assert Reasoning(inside=inside).split(text)[:2] == (reasoning, answer)


def streamed(parts: list[str], inside: bool) -> tuple[str, str]:
    splitter = ReasoningSplitter(inside=inside)
    found = {"reasoning": "", "answer": ""}
    for kind, piece in [pair for part in parts for pair in splitter.push(part)] + splitter.flush():
        assert piece
        assert kind == "answer" or not found["answer"]  # never back to reasoning
        found[kind] += piece
    return found["reasoning"], found["answer"]


@pytest.mark.parametrize(("text", "inside", "reasoning", "answer"), WHOLE)
def test_character_by_character(text: str, inside: bool, reasoning: str | None, answer: str) -> None:
    assert streamed(list(text), inside) == (reasoning or "", answer)


PARTS = st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think>", "</thi", "\n", " ", "a", "\n\n", "é", ""]))


@given(PARTS, st.booleans())
def test_any_cut(parts: list[str], inside: bool) -> None:
    reasoning, answer = Reasoning(inside=inside).split("".join(parts))[:2]
    assert streamed(parts, inside) == (reasoning or "", answer)
    assert streamed(list("".join(parts)), inside) == (reasoning or "", answer)


@given(PARTS, st.booleans())
def test_nothing_but_tags_and_line_ends_is_lost(parts: list[str], inside: bool) -> None:
    text = "".join(parts)
    reasoning, answer = Reasoning(inside=inside).split(text)[:2]

    def bare(piece: str) -> str:
        return re.sub(r"</?think>|[\n ]", "", piece)  # in one pass: what stands around a tag may form another

    assert bare(reasoning or "") + bare(answer) == bare(text)


@given(PARTS, st.booleans())
def test_the_answer_is_found_where_it_is_split_off(parts: list[str], inside: bool) -> None:
    finder, before, answer = AnswerFinder(inside=inside), "", ""
    for part in parts:
        more = finder.push(part)
        assert not more[0] or not answer, "nothing stands before the answer once it began"
        before, answer = before + more[0], answer + more[1]
    more = finder.flush()
    before, answer = before + more[0], answer + more[1]
    text = "".join(parts)
    assert before + answer == text
    reasoning, expected, end = Reasoning(inside=inside).split(text)
    assert answer == expected
    assert end == "answer" or not answer
    assert (end == "reasoning") <= (reasoning is not None)
    if text.strip() not in "<think>":
        assert finder.inside == (end == "reasoning")


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
    assert Reasoning(inside=inside).split(text)[2] == end


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
    folder = Path(__file__).parents[3] / "shared" / "checkpoints" / name
    if not folder.is_dir():
        pytest.skip("../shared/checkpoints is not there")
    template = ChatTemplate.from_folder(folder)
    for variables, (inside, expected) in zip(({}, {"enable_thinking": False}), REAL[name], strict=True):
        prompt = template.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True, **variables)
        found = Reasoning.of(prompt, template.sources.values())
        assert (found.inside, found.possible) == (inside, expected)


def test_answer_is_not_held_back() -> None:
    splitter = ReasoningSplitter()
    assert splitter.push("a<thi") == [("answer", "a<thi")]
    assert splitter.push("\n") == [("answer", "\n")]


def test_reasoning_is_held_back_no_longer_than_needed() -> None:
    splitter = ReasoningSplitter(inside=True)
    assert splitter.push("ab") == [("reasoning", "ab")]
    assert splitter.push("\n</t") == []
    assert splitter.push("est") == [("reasoning", "\n</test")]


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [("<|im_start|>assistant\n<think>\n", True), ("<think>\n\n</think>\n\n", False), ("", False), ("<think>a", False)],
)
def test_prompt_opens_reasoning(prompt: str, opens: bool) -> None:
    assert opens_reasoning(prompt) is opens
