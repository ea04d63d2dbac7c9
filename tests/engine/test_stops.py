"""Where answers end: stop texts over special tokens and behind reasoning, end tokens, and the least and most tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import EOS, STEP, VOCAB, ToyCache, ToyManager, ToyModel, toy_logits

from pio.cache.batch import Batch
from pio.engine.generation import Generation
from pio.engine.limits import Limits
from pio.engine.sampling_params import SamplingParams
from pio.errors import CapacityError, ConfigError
from pio.loading.checkpoint import resolve
from pio.plugin.prompts import Prompts
from pio.tensor import Tensor
from pio.testing.reference import penalties as reference
from pio.text.chat_template import ChatTemplate
from pio.text.encoded_prompt import EncodedPrompt
from pio.text.reasoning import Reasoning
from pio.text.tokenizer import Tokenizer

# Special tokens are those that look so, but for the tags of reasoning, which always show.
PIECES = ["a", "ab", "b\n", "\n", "é", "<|x|>", "<|y|>", "<x", "|>", "<think>", "</think>", "</th", "ink>"]
X, Y = PIECES.index("<|x|>"), PIECES.index("<|y|>")
SPECIAL = frozenset((X, Y))
CONTEXT = 400


class Script(ToyModel):
    """Says what it is told to, token by token behind a prompt of one; 9 is the logit of the next, 8 of that behind."""

    def __init__(self, script: Sequence[int], vocab_size: int = VOCAB) -> None:
        super().__init__(max_positions=CONTEXT)
        self.script = script
        self.vocab_size = vocab_size
        self._out = Tensor.zeros((1, vocab_size))

    def forward(self, batch: Batch, cache: ToyCache) -> Tensor:
        at = batch.past.tolist()[0] + batch.num_tokens - 1
        row = [0.0] * self.vocab_size
        for logit, token in ((8.0, at + 1), (9.0, at)):
            row[self.script[token % len(self.script)]] = logit
        self._out.copy_(Tensor.from_list([row]))
        return self._out[: batch.num_outputs]


class Pieces:
    """A detokenizer that gives each token's text at once."""

    def __init__(self, skip: bool) -> None:
        self.skipped = SPECIAL if skip else frozenset[int]()

    def push(self, token: int) -> str:
        return "" if token in self.skipped else PIECES[token]

    def flush(self) -> str:
        return ""


def split(text: str, inside: bool) -> tuple[str | None, str]:
    """Reasoning and answer of a whole text."""
    splitter, found = Reasoning(inside=inside).splitter(), {"reasoning": "", "text": "", "markup": ""}
    for kind, piece in [*splitter.push(text), *splitter.flush()]:
        found[kind] += piece
    return found["reasoning"] or ("" if splitter.inside else None), found["text"]


def say(script: Sequence[int], reasoning: Reasoning | None = None, ends: Sequence[int] = (), **fields: Any) -> Any:
    """The answer of a model that says this, and the text that was streamed."""
    manager = ToyManager(
        Script(script), ToyCache(CONTEXT // 4, 4), eos_token_ids=ends, detokenizer=Pieces, token_text=PIECES.__getitem__
    )
    fields = {"temperature": 0.0, "max_new_tokens": len(script), **fields}
    try:
        handle = manager.submit(EncodedPrompt([0], reasoning), SamplingParams(**fields))
        result = handle.result(STEP)
        return result, "".join(handle)
    finally:
        manager.close()


def naive(pieces: Sequence[tuple[str, bool]], stops: Sequence[str]) -> tuple[str, str | None, int]:
    """The visible text before a stop, the stop, and how many pieces there were until then."""
    whole = marks = ""
    within: set[int] = set()  # a hidden piece, which is named as a whole or not at all
    for count, (piece, hidden) in enumerate(pieces, 1):
        within |= set(range(len(whole) + 1, len(whole) + len(piece))) if hidden else set()
        for character in piece:
            whole += character
            marks += " " if hidden else "x"
            for stop in sorted(stops, key=len, reverse=True):
                if whole.endswith(stop) and not {len(whole), len(whole) - len(stop)} & within:
                    before = len(whole) - len(stop)
                    return "".join(c for c, m in zip(whole[:before], marks, strict=False) if m == "x"), stop, count
    return "".join(c for c, m in zip(whole, marks, strict=True) if m == "x"), None, len(pieces)


SCRIPTS = st.lists(st.integers(0, 8), min_size=1, max_size=8)
STOPS = st.lists(
    st.sampled_from(
        ["<|x|>", "<|x|>a", "a<|x|>", "|>", "x|><|y|>b", "ab", "é<", "\n\n", "b\n<|x|>a", "é", "a<|y", "<x"]
    ),
    max_size=3,
)


@given(SCRIPTS, STOPS, st.booleans(), st.booleans())
def test_one_rule_whether_special_tokens_show_or_not(
    script: list[int], stops: list[str], skip: bool, include: bool
) -> None:
    result, streamed = say(script, stop=stops, skip_special_tokens=skip, include_stop=include)
    text, stop, count = naive([(PIECES[token], skip and token in SPECIAL) for token in script], stops)
    assert result.text == streamed == text + (stop if stop and include else "")
    assert (result.stop_reason, result.finish_reason) == (stop, "stop" if stop else "length")
    assert len(result.token_ids) == count


DEMO = Tokenizer.from_folder(resolve("demo"), vocab_size=4096)
ADDED = ["<|im_start|>", "<|im_end|>", "<|file_sep|>", "<think>"]  # special, and not
TEXTS = ["def f(", "\n\n", "é", "汉字", "🦜 a", " user", "<|im_", "|>", "<"]


@given(
    st.lists(st.sampled_from([*ADDED, *TEXTS]), min_size=1, max_size=6),
    st.lists(st.sampled_from([*ADDED, *TEXTS, "<|im_start|> user", "字<|im_end|>", "\x99", "a<|", "f(é"]), max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_one_rule_with_a_real_tokenizer(texts: list[str], stops: list[str], skip: bool, include: bool) -> None:
    """Characters and stop texts of several tokens; only the pieces that texts are written in are searched."""
    assert DEMO is not None
    prompts, script, pieces = Prompts("demo", DEMO, ChatTemplate("")), list[int](), list[tuple[str, bool]]()
    for text in texts:
        hidden = skip and text in ADDED and (token := DEMO.token_to_id(text)) in DEMO.special_ids - DEMO.reasoning_ids
        script += [token] if hidden else DEMO.encode(text)
        pieces.append((text, hidden))
    manager = ToyManager(
        Script(script, 4096), ToyCache(CONTEXT // 4, 4), detokenizer=prompts.detokenizer, token_text=prompts.token_text
    )
    params = SamplingParams(
        temperature=0.0, max_new_tokens=len(script), stop=stops, skip_special_tokens=skip, include_stop=include
    )
    handle = manager.submit([0], params)
    result = handle.result(STEP)
    manager.close()
    text, stop, _ = naive(pieces, stops)
    assert result.text == "".join(handle) == text + (stop if stop and include else "")
    assert result.stop_reason == stop


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4, 9, 10, 11, 12]), min_size=1, max_size=9), STOPS, st.booleans())
def test_stop_texts_end_the_answer_and_not_the_reasoning(script: list[int], stops: list[str], inside: bool) -> None:
    result, streamed = say(script, Reasoning(inside=inside), stop=stops)
    said = "".join(PIECES[token] for token in script)
    reasoning, answer = split(said, inside)
    ends = [(answer.index(stop) + len(stop), -len(stop), stop) for stop in stops if stop in answer]
    stop = min(ends)[2] if ends else None
    expected = answer if stop is None else answer[: min(ends)[0] - len(stop)]
    assert (result.reasoning, result.text, result.stop_reason) == (reasoning, expected, stop)
    assert split(streamed, inside) == (reasoning, expected)
    assert streamed == (said if stop is None else said[: len(said) - len(answer)] + expected)


def of(text: str) -> list[int]:
    return [PIECES.index(piece) for piece in text.split(" ")]


def test_special_tokens_within_reasoning_do_not_stop_it() -> None:
    script = of("<think> a <|x|> \n \n </think> \n \n ab <|x|> a")
    result, _ = say(script, Reasoning(), stop=["<|x|>", "\n\n"])
    assert (result.reasoning, result.text, result.stop_reason) == ("a", "ab", "<|x|>")
    result, _ = say(of("a <|x|> b\n"), Reasoning(inside=True), stop=["<|x|>"])
    assert (result.reasoning, result.finish_reason, result.answered) == ("ab", "length", False)
    for opening in ([], of("</think>"), of("</think> \n")):  # the first thing of the answer
        result, _ = say([*opening, *of("<|x|> a")], Reasoning(inside=bool(opening)), stop=["<|x|>"])
        assert (result.text, result.stop_reason, result.answered) == ("", "<|x|>", True)


def test_events_say_what_their_text_is() -> None:
    script = of("<think> \n a b\n </think> \n ab é")
    manager = ToyManager(Script(script), ToyCache(CONTEXT // 4, 4), detokenizer=Pieces, token_text=PIECES.__getitem__)

    def events(count: int) -> list[tuple[int, str, str]]:
        params = SamplingParams(temperature=0.0, max_new_tokens=count)
        return [(e.position, e.kind, e.text) for e in manager.submit(EncodedPrompt([0], Reasoning()), params).events()]

    whole = events(len(script))
    assert whole == [
        (0, "markup", "<think>"),
        (1, "markup", "\n"),
        (2, "reasoning", "a"),
        (3, "reasoning", "b"),
        (4, "markup", "\n</think>"),
        (5, "markup", "\n"),
        (6, "text", "ab"),
        (7, "text", "é"),
    ]
    assert events(4) == [*whole[:4], (3, "markup", "\n")], "cut here, the line end is the end of the reasoning"
    manager.close()


def test_stop_tokens_and_end_tokens_end_the_reasoning_too() -> None:
    script = of("<think> a <|x|> ab")
    for given_ in ({"stop_token_ids": [X]}, {"ends": [X]}):
        result, _ = say(script, Reasoning(), **given_)
        assert (result.reasoning, result.text, result.stop_reason) == ("a", "", X)
        assert (result.finish_reason, result.answered) == ("stop", False)


def test_an_end_token_completes_a_stop_text() -> None:
    result, streamed = say(of("a ab b\n <|x|>"), ends=[X], stop="b\n<|x|>")
    assert (result.text, streamed, result.stop_reason) == ("aab", "aab", "b\n<|x|>")
    result, _ = say(of("a b\n <|x|>"), ends=[X], stop="\n<|x|>a")  # not complete: the token ends the answer
    assert (result.text, result.stop_reason) == ("ab\n", X)


@pytest.mark.parametrize(
    ("script", "inside", "answered"),
    [
        ("a ab", False, True),
        ("<think>", False, False),
        ("<think> a", False, False),
        ("a", True, False),
        ("<think> a </think>", False, False),
        ("<think> a </think> \n", False, False),
        ("<think> </think>", False, False),
        ("<think> \n </think> \n", False, False),
        ("<think> a </think> \n ab", False, True),
        ("a </think> ab", True, True),
    ],
)
def test_an_answer_that_ended_before_it_began(script: str, inside: bool, answered: bool) -> None:
    result, streamed = say(of(script), Reasoning(inside=inside))
    assert result.answered is answered and bool(result.text) is answered
    assert (result.reasoning is None) == (script == "a ab" or script.startswith(("<think> <", "<think> \n <")))
    assert split(streamed, inside) == (result.reasoning, result.text)


# The least and the most tokens


def ids(result: Generation) -> list[int]:
    return result.token_ids


def test_no_end_token_comes_too_early() -> None:
    script = [0, X, 1, X, 2, X, 3, Y]
    fields = {"ends": [X], "stop_token_ids": [Y]}
    assert ids(say(script, **fields)[0]) == [0, X]
    assert ids(say(script, **fields, min_new_tokens=4)[0]) == [0, 1, 1, 2, 2, X]  # what is likeliest behind it comes
    assert ids(say(script, **fields, min_length=5)[0]) == [0, 1, 1, 2, 2, X]  # the prompt is one token
    assert ids(say(script, **fields, min_length=5, min_new_tokens=1)[0]) == [0, X]
    assert Y not in ids(say([0, Y, 1], stop_token_ids=[Y], min_new_tokens=3)[0])
    assert ids(say(script, ends=[X], ignore_eos=True, min_new_tokens=4, max_new_tokens=4)[0]) == script[:4]
    with pytest.raises(ConfigError, match="min_new_tokens=5 contradicts max_new_tokens=4"):
        say(script, min_new_tokens=5, max_new_tokens=4)
    limits = Limits(vocab_size=9, context=CONTEXT, max_length=CONTEXT, has_text=True)
    assert limits.most_tokens(SamplingParams(min_new_tokens=4, max_length=5), 1, thinks=False) == 4
    with pytest.raises(ConfigError, match="min_new_tokens=4 contradicts max_length=5: behind a prompt of 2 tokens"):
        limits.most_tokens(SamplingParams(min_new_tokens=4, max_length=5), 2, thinks=False)
    stopped, _ = say(script, **fields, min_new_tokens=6, stop="ab")  # a stop text still ends it
    assert (ids(stopped), stopped.stop_reason) == ([0, 1], "ab")


def test_tokens_that_must_not_come() -> None:
    script = [0, 1, 0, 2, 0, 3]
    assert ids(say(script, suppress_tokens=[0])[0]) == [1, 1, 2, 2, 3, 3]
    assert ids(say(script, begin_suppress_tokens=[0])[0]) == [1, 1, 0, 2, 0, 3]
    assert ids(say(script, bad_words_ids=[[1, 0], [3]])[0]) == [0, 1, 2, 2, 0, 0]
    assert ids(say(script, bad_words_ids=[[0, 0]])[0]) == [1, 1, 0, 2, 0, 3], "the prompt began it"
    assert len(set(ids(say(script, no_repeat_ngram_size=1)[0]))) == 6


def test_bans_that_leave_nothing_are_named() -> None:
    with pytest.raises(ConfigError, match=r"suppress_tokens.*forbid every token that could come next"):
        say([0, 1], suppress_tokens=list(range(VOCAB)))
    wrong = {"suppress_tokens": [VOCAB], "begin_suppress_tokens": [VOCAB], "bad_words_ids": [[1, VOCAB]]}
    for field, value in wrong.items():
        with pytest.raises(ConfigError, match=rf"{field}: token id {VOCAB} is outside the vocabulary; expected 0 to"):
            say([0, 1], **{field: value})


def test_the_default_length_lets_a_model_think() -> None:
    script, default, room = of("a ab"), {"max_new_tokens": None}, CONTEXT - 1
    assert len(ids(say(script, **default)[0])) == 256
    assert len(ids(say(script, Reasoning(), **default)[0])) == 256
    assert len(ids(say(script, Reasoning(expected=True), **default)[0])) == room
    assert len(ids(say(script, Reasoning(inside=True), **default)[0])) == room
    assert len(ids(say(script, Reasoning(inside=True), **default, max_length=6)[0])) == 5
    assert len(ids(say(script, Reasoning(inside=True), max_new_tokens=3)[0])) == 3
    with pytest.raises(CapacityError, match=r"max_length=1 leaves no room .* max_new_tokens"):
        say(script, **default, max_length=1)
    assert len(ids(say(script, max_length=1, max_new_tokens=3)[0])) == 3


@pytest.mark.parametrize("num_blocks", [8, 40])  # with eight, answers give way to others and begin again
def test_bans_hold_whatever_runs_beside_an_answer(num_blocks: int) -> None:
    manager = ToyManager(ToyModel(), ToyCache(num_blocks, 4), eos_token_ids=[EOS])
    fields: dict[str, Any] = {
        "max_new_tokens": 16,
        "min_new_tokens": 9,
        "suppress_tokens": [3],
        "begin_suppress_tokens": [i for i in range(VOCAB) if i % 3],
        "bad_words_ids": [[i, i + 1] for i in range(9)],
        "no_repeat_ngram_size": 2,
    }
    prompts = [[i, i + 1, i + 2] for i in range(4)]
    handles = [manager.submit(prompt, SamplingParams(temperature=0.0, **fields)) for prompt in prompts]
    drawn = manager.submit([7, 1], SamplingParams(n=3, seed=5, **fields)).result(STEP).samples
    for prompt, handle in zip(prompts, handles, strict=True):
        assert ids(handle.result(STEP)) == greedy(prompt)
    for sample in drawn:
        assert ids(manager.submit([7, 1], SamplingParams(seed=sample.seed, **fields)).result(STEP)) == sample.token_ids
        for count, token in enumerate(sample.token_ids):
            assert token not in forbidden([7, 1], sample.token_ids[:count])
    manager.close()


def greedy(prompt: list[int]) -> list[int]:
    """The answer by a search through everything that was said."""
    answer: list[int] = []
    while len(answer) < 16 and answer[-1:] != [EOS]:
        row = reference.penalize(toy_logits([*prompt, *answer]), [], [], banned=forbidden(prompt, answer))
        answer.append(row.index(max(row)))
    return answer


def forbidden(prompt: list[int], answer: list[int]) -> set[int]:
    return reference.banned(
        prompt,
        answer,
        VOCAB,
        always=[3],
        first=[i for i in range(VOCAB) if i % 3],
        early=[EOS],
        early_tokens=9,
        sequences=[[i, i + 1] for i in range(9)],
        ngram=2,
    )
