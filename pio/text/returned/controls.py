"""Control tokens of an answer that comes back: none is to be where the text alone would have letters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from pio.text.calling import body
from pio.text.calling.splitter import Part
from pio.text.returned.answers import ReturnedAnswer
from pio.text.returned.place import Unplaced
from pio.text.returned.spans import TokenSpans
from pio.text.tokenizer import Tokenizer

_MORE = "it has control tokens that its text does not have"


def check_controls(
    answer: ReturnedAnswer, first: int, encoded: list[int], tokenizer: Tokenizer, *, literal: bool
) -> None:
    """See to it that no control token comes into the prompt which the text alone would not bring there.

    With literal messages the same text may stand there as a tag and, mentioned, as letters: then each control token is
    to be a tag of its own part, and where some of its name are letters, they are to be the same ones that the text
    would give, counted from the beginning: so no tag becomes letters for a mention to end the part in its place.

    Args:
        answer: The answer.
        first: The first of its tokens that is to stand in the prompt.
        encoded: The tokens in whose place they are to stand.
        tokenizer: Of all these tokens.
        literal: Whether control tokens in messages are to stay letters.

    Raises:
        Unplaced: One would.
    """
    expected = iter([token for token in encoded if token in tokenizer.control_ids])
    found = [*answer.spans.controls(first)]
    if not all(token in expected for token, _ in found):
        raise Unplaced(_MORE)
    if not literal or not found:
        return
    if not all(_is_tag(answer, tokenizer, token, at) for token, at in found):
        raise Unplaced(_MORE)
    own, written = TokenSpans(tokenizer, answer.spans.ids[first:]), TokenSpans(tokenizer, encoded)
    for token in {token for token, _ in found}:
        tags, others = _tags(own, tokenizer, token), _tags(written, tokenizer, token)
        if not (all(tags) and all(others)) and tags != others:
            raise Unplaced(_MORE)


def _tags(spans: TokenSpans, tokenizer: Tokenizer, token: int) -> list[bool]:
    """Say of each place in a text that is spelled as a control token whether it is this token."""
    places = {at for found, at in spans.controls() if found == token}
    return [found.start() in places for found in re.finditer(re.escape(_spelled(tokenizer, token)), spans.text)]


def _is_tag(answer: ReturnedAnswer, tokenizer: Tokenizer, token: int, at: int) -> bool:
    """Say whether a control token is where one may be: around the reasoning, or in a call where its tags are.

    Of tags within a call, such as GLM's, that is certain only where the message does not bring the call's text along,
    and has its arguments in the order in which they were written.
    """
    count, begin = 0, 0
    for kind, text, call in _whole(answer.reading.parts if answer.reading else ()):
        end = begin + len(text)
        if at >= end:
            begin, count = end, count + (kind == "tool_call")
            continue
        if kind != "tool_call":
            return token in tokenizer.reasoning_ids
        spelled = _spelled(tokenizer, token)
        if spelled in (body.OPEN, body.CLOSE):
            return at == begin if spelled == body.OPEN else at + len(spelled) == end
        said = answer.said.calls[count]
        return call is not None and said.raw is None and [*call.arguments] == [*said.arguments]
    return False


def _whole(parts: Collection[Part]) -> Iterator[Part]:
    """Yield parts, of which each call is one."""
    begun = ""
    for kind, text, call in parts:
        if kind == "tool_call" and call is None:
            begun += text
            continue
        yield kind, begun + text, call
        begun = ""


def _spelled(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.bytes_of[token].decode("utf-8", "replace")
