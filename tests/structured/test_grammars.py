"""Masks of grammars on the demo model's tokenizer, against what the bytes of its tokens say."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import pio
from pio.errors import ConfigError, PioError
from pio.structured.grammars import Grammars
from pio.structured.guide import Guide
from pio.structured.response_format import ResponseFormat
from pio.text.reasoning import Reasoning
from pio.text.tokenizer import Tokenizer

PADDED = 4100  # ids of a model that has more of them than tokens
ENDS = {0, 2}
THINK, THOUGHT = 3, 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = Tokenizer.from_folder(Path(pio.__file__).parent / "demo", vocab_size=PADDED)
    assert found is not None and found.size == 4096
    return found


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, PADDED, ENDS)


def begin(grammars: Grammars, given: Any, reasoning: Reasoning | None = None) -> Guide:
    return grammars.guide(ResponseFormat.of(given), reasoning)


def allowed(guide: Guide) -> set[int]:
    return {token for token in range(PADDED) if guide.mask.words[token // 32] >> token % 32 & 1}


def one_by_one(guide: Guide) -> set[int]:
    return {token for token in range(PADDED) if guide.allows(token)}


def take(guide: Guide, token: int, state: Any = "answer", text: str = "") -> None:
    guide.take(token)
    if not guide.complete:
        guide.follow(state, text)


@pytest.mark.parametrize(
    "choices", [["yes", "no", "not now"], ["Grüße", "Größe", "😀", "a.b*(c)"], ["<think>", "</think>"]]
)
def test_choices_allow_what_begins_one_of_them(tokenizer: Tokenizer, grammars: Grammars, choices: list[str]) -> None:
    """Token by token to each choice, by its longest tokens; control tokens never come, as letters they may."""
    for choice in choices:
        guide, left = begin(grammars, choices), choice.encode()
        done = b""
        while left:
            rest = [c.encode()[len(done) :] for c in choices if c.encode().startswith(done)]
            expected = {
                token
                for token in range(tokenizer.size)
                if token not in tokenizer.control_ids
                and (data := tokenizer.bytes_of[token])
                and any(r.startswith(data) for r in rest)
            }
            expected |= ENDS if b"" in rest else set()
            assert one_by_one(guide) == expected
            if len(rest) == 1:  # letters that must come come in the tokenizer's own tokens
                assert len(allowed(guide)) == 1 and allowed(guide) <= expected
            else:
                assert allowed(guide) == expected
            expected &= allowed(guide)
            token = max(
                (t for t in expected - ENDS if left.startswith(tokenizer.bytes_of[t])),
                key=lambda t: len(tokenizer.bytes_of[t]),
            )
            take(guide, token)
            done, left = done + tokenizer.bytes_of[token], left[len(tokenizer.bytes_of[token]) :]
        others = [c for c in choices if c.startswith(choice) and c != choice]
        assert guide.complete == (not others)


@pytest.mark.parametrize("end", sorted(ENDS))
def test_any_end_token_ends_what_could_go_on(tokenizer: Tokenizer, grammars: Grammars, end: int) -> None:
    guide = begin(grammars, "regex:[0-9]{2,}")
    digit = tokenizer.encode("7")[0]
    assert not allowed(guide) & ENDS
    take(guide, digit)
    assert not allowed(guide) & ENDS and not guide.complete
    take(guide, digit)
    assert allowed(guide) >= ENDS and not guide.complete
    take(guide, end)
    assert guide.complete


def test_a_regular_expression_allows_what_python_allows(tokenizer: Tokenizer, grammars: Grammars) -> None:
    guide, python = begin(grammars, "regex:[a-f ]{1,4}"), re.compile(rb"[a-f ]{1,4}")
    expected = {t for t in range(tokenizer.size) if python.fullmatch(tokenizer.bytes_of[t])}
    assert allowed(guide) == one_by_one(guide) == expected - tokenizer.control_ids and len(expected) > 20


def test_no_text_has_control_tokens_or_ids_without_tokens(tokenizer: Tokenizer, grammars: Grammars) -> None:
    guide = begin(grammars, "regex:(?s:.*)")
    found = allowed(guide)
    assert not found & (tokenizer.control_ids - ENDS) and max(found) < tokenizer.size and found >= ENDS
    assert len(found) > 3500 and one_by_one(guide) == found
    take(guide, tokenizer.encode("a")[0])
    with pytest.raises(PioError, match="cannot be followed"):
        take(guide, THINK)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["<think>"], "<think>"),
        ({"const": "<|im_end|>"}, '"<|im_end|>"'),
        ("regex:a<tool_call>b", "a<tool_call>b"),
    ],
)
def test_control_tokens_that_have_to_come_are_letters(
    tokenizer: Tokenizer, grammars: Grammars, given: Any, text: str
) -> None:
    """Where a text is forced, its tokens are those of its letters."""
    guide, tokens = begin(grammars, given), list[int]()
    while not guide.complete:
        (token,) = allowed(guide)
        tokens.append(token)
        take(guide, token)
    assert tokens == tokenizer.encode(text, add_special_tokens=False, literal=True)


def test_whitespace_is_bounded(tokenizer: Tokenizer, grammars: Grammars) -> None:
    """Between two parts: a space, or a line end and an indentation, once."""
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 1}

    def follows(text: str) -> bool:
        guide = begin(grammars, schema)
        for letter in text:  # bytes are tokens, too
            token = tokenizer.token_to_id({" ": "Ġ", "\n": "Ċ", "\t": "ĉ", "\r": "č"}.get(letter, letter))
            assert token is not None
            if token not in allowed(guide):
                return False
            take(guide, token)
        return True

    assert all(map(follows, ("[1, 2]", "[1,2]", "[\n  1,\n  2\n]", "[\r\n\t1]", "[" + "\n" + " " * 20 + "1]")))
    assert not any(map(follows, (" [", "[  ", "[\n\n", "[1,  ", "[" + "\n" + " " * 21, "[\n \n", "[\t")))


# Reasoning


def test_a_model_thinks_freely_and_cannot_end_there(tokenizer: Tokenizer, grammars: Grammars) -> None:
    line_end = tokenizer.encode("\n")[0]
    guide = begin(grammars, ["yes", "no"], Reasoning(inside=True, expected=True))
    assert allowed(guide) == set(range(PADDED)) - ENDS and not guide.answering
    take(guide, line_end, "reasoning")
    assert allowed(guide) == one_by_one(guide) == set(range(PADDED)) - ENDS
    take(guide, THOUGHT, "gap")
    words = allowed(begin(grammars, ["yes", "no"]))
    breaks = {t for t in range(tokenizer.size) if tokenizer.bytes_of[t] and not tokenizer.bytes_of[t].strip(b"\n")}
    assert allowed(guide) == one_by_one(guide) == words | breaks and line_end in breaks
    take(guide, line_end, "gap")
    assert allowed(guide) == one_by_one(guide) == words, "one token of line ends, not for ever"
    take(guide, tokenizer.encode("no")[0])
    assert guide.complete


def test_a_model_that_may_think_thinks_or_answers(grammars: Grammars, tokenizer: Tokenizer) -> None:
    words = allowed(begin(grammars, ["yes", "no"]))
    guide = begin(grammars, ["yes", "no"], Reasoning(expected=True))
    assert allowed(guide) == one_by_one(guide) == words | {THINK}
    take(guide, THINK, "reasoning")
    assert allowed(guide) == set(range(PADDED)) - ENDS
    guide = begin(grammars, ["yes", "no"], Reasoning(expected=True))
    take(guide, tokenizer.encode("n")[0])
    assert THINK not in allowed(guide) and guide.answering
    assert allowed(begin(grammars, ["yes", "no"], Reasoning())) == words


def test_text_behind_the_reasoning_in_one_token(tokenizer: Tokenizer, grammars: Grammars) -> None:
    guide = begin(grammars, ["yes", "no"], Reasoning(inside=True))
    take(guide, 100, "answer", "ye")  # a tokenizer without a token for the tag may have one that goes on behind it
    assert guide.answering and allowed(guide) == one_by_one(guide) == {tokenizer.encode("s")[0]}
    with pytest.raises(PioError, match="cannot be followed"):
        take(begin(grammars, ["yes", "no"], Reasoning(inside=True)), 100, "answer", "maybe")


# Refusals


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"properties": {"tags": {"items": {"uniqueItems": True}}}},
            "^response_format: uniqueItems at #/properties/tags/items/uniqueItems: ",
        ),
        ({"properties": {"not": {"not": {}}}}, "not at #/properties/not/not"),
        ({"$defs": {"a/b": {"format": "path"}}, "$ref": "#/$defs/a~1b"}, "format at #/\\$defs/a~1b/format"),
        ({"oneOf": [{"type": "string"}, {"minLength": 2, "type": "string"}]}, "oneOf at #/oneOf: .*; use anyOf"),
        ({"type": "string", "pattern": "(?=a)b"}, "pattern at #/pattern: .*look-around"),
        ({"$ref": "https://example.com/schema"}, r"\$ref at #/\$ref: .*nothing is fetched"),
        ({"type": "json_objct"}, "type at #/type: .*json_objct"),
        ({"type": "object", "properties": {"a": {}}, "minProperties": 2}, "minProperties at #/minProperties"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired at #/dependentRequired"),
        ({"$ref": "#"}, "allows no answer at all"),
        ({"$ref": "#/$defs/RateLimit"}, "RateLimit' does not exist.*; leave it out"),  # no word of a limit of pio's
        ("regex:too many (", "regular expression .*unclosed group"),
        ("regex:(?=a)b", "regular expression .*look-around"),
        ("regex:(ab", "regular expression .*unclosed group"),
        ("regex:" + "(" * 5000 + "a" + ")" * 5000, "regular expression"),
        ("regex:[^\\s\\S]", "allows no answer at all"),
        ({"type": "grammar", "grammar": "start: foo"}, 'grammar cannot be used: .*unknown name: "foo"'),
        ({"type": "grammar", "grammar": "start: " + "(" * 20000 + '"a"' + ")" * 20000}, "grammar .*deeply nested"),
        (
            {
                "allOf": [
                    {"anyOf": [{"properties": {f"p{i}{j}": {"type": "integer"}}} for j in range(4)]} for i in range(12)
                ]
            },
            "too large",
        ),
    ],
)
def test_what_cannot_be_promised_is_refused_by_keyword_and_place(grammars: Grammars, given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        begin(grammars, given)
    assert len(str(caught.value)) < 600 and str(caught.value).startswith("response_format")


@pytest.mark.parametrize(
    "regex", ["((a{1,100}){1,100}){1,100}", "(.*a.{20}b.*)+", "(a|b)*a(a|b){30}", "\\w{1,5000}", "(a+)+$", "(x+x+)+y"]
)
def test_a_regex_that_explodes_is_followed_or_refused(tokenizer: Tokenizer, grammars: Grammars, regex: str) -> None:
    """Thirty steps of each: a limit may end them, by a typed error and nothing else."""
    try:
        guide = begin(grammars, "regex:" + regex)
        for letter in "abababxaabbabbaaxabbbabaabbbab":
            token = tokenizer.encode(letter)[0]
            if token in allowed(guide):
                take(guide, token)
    except PioError as error:
        assert "response_format" in str(error)


def test_a_model_without_end_tokens_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="no file of this model names an end token"):
        begin(Grammars(tokenizer, PADDED, ()), ["yes", "no"])


def test_equal_formats_are_compiled_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[ResponseFormat] = []
    compile_format = Grammars._compile

    def counted(self: Grammars, response_format: ResponseFormat) -> Any:
        compiled.append(response_format)
        return compile_format(self, response_format)

    monkeypatch.setattr(Grammars, "_compile", counted)
    grammars = Grammars(tokenizer, PADDED, ENDS)
    first, second = begin(grammars, {"enum": [1, 2]}), begin(grammars, {"enum": [1, 2]})
    take(first, tokenizer.encode("1")[0])
    assert len(compiled) == 1 and first.complete and not second.complete
    for number in range(70):
        begin(grammars, {"const": number})
        begin(grammars, {"const": 0})
    assert len(compiled) == 71, "what is asked for again and again stays"
    begin(grammars, {"enum": [1, 2]})
    assert len(compiled) == 72, "what was asked for longest ago went"


def test_what_is_kept_is_found_by_every_thread(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread takes it, another finds it, too."""
    compiled = threading.Semaphore(1)
    compile_format = Grammars._compile

    def once(self: Grammars, response_format: ResponseFormat) -> Any:
        assert compiled.acquire(blocking=False), "it is compiled a second time"
        return compile_format(self, response_format)

    monkeypatch.setattr(Grammars, "_compile", once)
    grammars = Grammars(tokenizer, PADDED, ENDS)
    begin(grammars, ["yes", "no"])

    class Watched(dict[Any, Any]):
        """Asks for the format whenever it is looked at or changed, as another thread might."""

        inside = False

        def again(self) -> None:
            if not self.inside:
                self.inside = True
                begin(grammars, ["yes", "no"])
                self.inside = False

        def get(self, *key: Any) -> Any:
            found = super().get(*key)
            self.again()
            return found

        def pop(self, *key: Any) -> Any:
            found = super().pop(*key)
            self.again()
            return found

        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            self.again()

    grammars._kept = Watched(grammars._kept)
    begin(grammars, ["yes", "no"])


def test_all_answers_share_what_may_come_while_they_think(grammars: Grammars) -> None:
    first, second = (begin(grammars, ["yes", "no"], Reasoning(inside=True)) for _ in range(2))
    assert first.mask is second.mask
    take(first, THOUGHT, "gap")
    assert first.mask is not second.mask and allowed(second) == set(range(PADDED)) - ENDS


def test_without_llguidance_the_library_is_named() -> None:
    code = """
    import sys
    sys.modules["llguidance"] = None
    import pio
    from pio.engine.sampling_params import SamplingParams
    with pio.load("demo") as model:
        try:
            model.generate("x", response_format=["yes", "no"])
        except pio.ConfigError as error:
            print(error)
        print(model.generate("x", max_new_tokens=1).finish_reason)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "needs llguidance" in ran.stdout and ": pip install llguidance\n" in ran.stdout
    assert ran.stdout.endswith("length\n")
