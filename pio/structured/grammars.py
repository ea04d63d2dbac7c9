"""Grammars of one model: its tokenizer as llguidance wants it, and what was compiled for it."""

from __future__ import annotations

import json
import re
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from pio.errors import ConfigError
from pio.ops.token_mask import TokenMask
from pio.shelter import sheltered
from pio.structured.constraint import Constraint
from pio.structured.guide import Guide, KnownTokens
from pio.structured.refusal import refusal
from pio.text.reasoning import OPEN
from pio.text.rust_calls import guarded

if TYPE_CHECKING:
    from collections.abc import Iterable

    import llguidance

    from pio.structured.response_format import ResponseFormat
    from pio.text.reasoning import Reasoning
    from pio.text.tokenizer import Tokenizer

# Between two parts of JSON, once: a space, or a line end and an indentation. Whatever a model wants, it cannot go on
# with spaces for ever.
WHITESPACE: Final = r"[ ]?(\r?\n[ \t]{0,20})?"
_KEPT = 64  # compiled grammars
_KEPT_CHARACTERS = 1 << 20  # of their sources together
# What a grammar may take: symbols, states of its lexer (1 to 2 kB each), and work for one mask.
_LIMITS: Final = {"max_grammar_size": 100_000, "max_lexer_states": 50_000, "verbose_errors": False}


class Grammars:
    """Compiles response formats for one model and keeps the last ones; for any number of threads at once.

    Two threads that ask for the same new format at once may both compile it: no lock is waited for.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, ends: Iterable[int]) -> None:
        """Note what is needed; nothing is made before somebody asks for a format.

        Args:
            tokenizer: The model's.
            vocab_size: Length of a row of logits.
            ends: Tokens that end an answer.
        """
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._ends = frozenset(ends)
        self._kept: dict[tuple[str, str], tuple[int, llguidance.LLMatcher]] = {}  # with when each was last asked for
        self._asked = count()

    def guide(self, response_format: ResponseFormat, reasoning: Reasoning | None) -> Guide:
        """Return what keeps one answer to a format.

        Args:
            response_format: The format.
            reasoning: How the answer is told apart from the reasoning before it; None where it is not.

        Raises:
            ConfigError: llguidance is not installed, the model names no end token, or the format cannot be compiled:
                the message names what in it cannot be promised.
        """
        key = response_format.kind, response_format.source
        kept = self._kept.get(key)
        matcher = self._compile(response_format) if kept is None else kept[1]
        self._kept[key] = next(self._asked), matcher  # in one go, so that another thread finds it meanwhile
        self._forget()
        constraint = Constraint(matcher.deep_copy(), self._backend, self._vocab_size)
        return Guide(response_format, constraint, self._known, reasoning)

    def _compile(self, response_format: ResponseFormat) -> llguidance.LLMatcher:
        backend, library = self._backend, _library()

        def compiled() -> llguidance.LLMatcher:
            grammar = _grammar(library, response_format)
            return library.LLMatcher(backend, grammar, log_level=0, limits=library.LLParserLimits(**_LIMITS))

        matcher = guarded(compiled, ConfigError, "response_format cannot be compiled; give a simpler one")
        if not matcher.is_error():  # some grammars are found to allow nothing at all only where they begin
            guarded(matcher.compute_bitmask, ConfigError, "response_format cannot be followed; give a simpler one")
        if matcher.is_error():
            raise refusal(response_format, matcher.get_error())
        return matcher

    def _forget(self) -> None:
        """Let go of grammars that were asked for longest ago, where there are too many or too large ones."""
        kept = self._kept.copy()
        size = sum(len(source) for _, source in kept)
        for oldest in sorted(kept, key=lambda key: kept[key][0]):
            if len(kept) <= _KEPT and (size <= _KEPT_CHARACTERS or len(kept) == 1):
                return
            del kept[oldest]
            size -= len(oldest[1])
            self._kept.pop(oldest, None)

    @cached_property
    def _backend(self) -> llguidance.LLTokenizer:
        """The tokenizer as llguidance wants it; what the model has beyond it never comes."""
        library = _library()
        if not self._ends:
            raise ConfigError(
                "response_format: no file of this model names an end token, so that an answer could not end; give "
                "eos_token_id in its generation_config.json"
            )
        vocabulary = _Vocabulary(self._tokenizer, self._vocab_size, self._ends)

        def made() -> llguidance.LLTokenizer:
            found: Any = vocabulary
            return library.LLTokenizer(found, n_vocab=self._vocab_size, eos_token=sorted(self._ends))

        bad = "response_format cannot be used with this model's tokenizer; download the model again"
        return sheltered(lambda: guarded(made, ConfigError, bad))

    @cached_property
    def _known(self) -> KnownTokens:
        tokens = map(self._tokenizer.bytes_of.__getitem__, range(min(self._tokenizer.size, self._vocab_size)))
        line_ends = frozenset(number for number, data in enumerate(tokens) if data and not data.strip(b"\n"))
        opening = self._tokenizer.token_to_id(OPEN)
        opening = opening if opening in self._tokenizer.reasoning_ids else None
        return KnownTokens(self._ends, opening, line_ends, TokenMask(self._vocab_size, self._ends))


class _Vocabulary:
    """What llguidance reads of a tokenizer: the bytes of each token, and which of them are no text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, ends: frozenset[int]) -> None:
        known = min(tokenizer.size, vocab_size)
        self._tokenizer = tokenizer
        self.eos_token_id = min(ends)
        self.tokens = [*map(tokenizer.bytes_of.__getitem__, range(known)), *[b""] * (vocab_size - known)]
        self.special_token_ids = sorted(number for number in tokenizer.control_ids | ends if number < known)

    def __call__(self, text: str) -> list[int]:
        """Return the tokens of a text that has to come, whose control tokens are letters as in all of an answer."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        if self._tokenizer.control_ids.isdisjoint(found):
            return found
        return self._tokenizer.encode(text, add_special_tokens=False, literal=True)


def _grammar(library: Any, response_format: ResponseFormat) -> str:
    """Return a format as llguidance reads it; JSON strictly, with bounded whitespace."""
    kind, source, matcher = response_format.kind, response_format.source, library.LLMatcher
    if kind == "json":
        ours = {"lenient": False, "coerce_one_of": False, "whitespace_flexible": True, "whitespace_pattern": WHITESPACE}
        return matcher.grammar_from_json_schema(source, overrides=ours)
    if kind == "grammar":
        return matcher.grammar_from_lark(source)
    if kind == "choice":
        source = "|".join(map(re.escape, json.loads(source)))
    return matcher.grammar_from_regex(source)


def _library() -> Any:
    def imported() -> Any:
        try:
            import llguidance
        except ImportError as error:
            raise ConfigError(f"response_format needs llguidance ({error}): pip install llguidance") from error
        return llguidance

    return sheltered(imported)
