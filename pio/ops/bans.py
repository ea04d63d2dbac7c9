"""Tokens that must not come next in an answer, kept up to date token by token."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain

from pio.errors import ConfigError
from pio.ops.token_mask import TokenMask, check_token


class Bans:
    """Which tokens are forbidden behind the prompt and the answer so far.

    A token costs the same however long the answer is. What is forbidden whatever was said before is in a mask; what
    follows from it comes in lists, which change with every token.

    Attributes:
        mask: Which tokens may come next, as far as that depends on the length of the answer alone; None for all.
        lists: Arrays of other token ids that must not come next, int32; a token may be in several.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        vocab_size: int,
        *,
        always: Iterable[int] = (),
        first: Iterable[int] = (),
        early: Iterable[int] = (),
        early_tokens: int = 0,
        sequences: Iterable[Sequence[int]] = (),
        ngram: int = 0,
        guided: bool = False,
    ) -> None:
        """Begin behind a prompt.

        Args:
            prompt: Token ids.
            vocab_size: Token ids are below it.
            always: Tokens that never come.
            first: Tokens that do not come first.
            early: Tokens that are not among the first ``early_tokens`` ones.
            early_tokens: How many.
            sequences: Runs of tokens that the answer must not complete, not even one that the prompt began.
            ngram: No run of so many tokens comes twice in prompt and answer; 0 turns it off.
            guided: Whether ``mask`` is somebody else's, who sets it for every token, and says when the answer may end;
                all that is said here is in lists then.

        Raises:
            ConfigError: A token id is outside the vocabulary, or tokens are early where somebody else says when the
                answer may end.
        """
        if guided and early_tokens:
            raise ConfigError("early_tokens contradicts guided: who sets the mask says when the answer may end")
        always, first, early = frozenset(always), frozenset(first), frozenset(early)
        for token in chain(always, first, early):
            check_token(token, vocab_size)
        early = always | early if early_tokens > 0 else always
        masks = {s: TokenMask(vocab_size, s) if s and not guided else None for s in (early | first, early, always)}
        self._early_mask, self._mask = masks[early], masks[always]
        self._always = _list_of(always) if guided else []
        self._guided = guided
        self._early_tokens = early_tokens
        self._endings: dict[tuple[int, ...], array[int]] = {}  # what must not follow, by what stands before it
        for *before, last in sequences:
            self._endings.setdefault(tuple(before), array("i")).append(last)
        for token in chain.from_iterable((*self._endings, *self._endings.values())):
            check_token(token, vocab_size)
        self._lengths = sorted({len(before) for before in self._endings})
        self._ngram = ngram
        self._followers: dict[tuple[int, ...], array[int]] = {}  # of each run of ngram - 1 tokens that there was
        self._recent: deque[int] = deque(maxlen=min(max(ngram - 1, *self._lengths, 0), sys.maxsize))
        self._answered = 0
        self._follows = bool(self._recent.maxlen or ngram or self._endings)
        for token in prompt if self._follows else ():
            self._add(token)
        self.mask = masks[early | first]
        self.lists = self._find() + (_list_of(always | first) if guided else [])

    def count(self, token: int) -> None:
        """Note one more token of the answer."""
        self._answered += 1
        self.mask = self._early_mask if self._answered < self._early_tokens else self._mask
        if self._follows:
            self._add(token)
        if self._follows or self._guided:
            self.lists = self._find() + self._always

    def _add(self, token: int) -> None:
        if self._ngram and len(self._recent) >= self._ngram - 1:
            self._followers.setdefault(self._last(self._ngram - 1), array("i")).append(token)
        self._recent.append(token)

    def _last(self, count: int) -> tuple[int, ...]:
        """The last tokens; all of them where there are fewer."""
        recent = self._recent
        return tuple(recent[i] for i in range(max(len(recent) - count, 0) - len(recent), 0))

    def _find(self) -> list[array[int]]:
        found = [self._endings.get(self._last(length)) for length in self._lengths]
        if self._ngram:
            found.append(self._followers.get(self._last(self._ngram - 1)))
        return [ids for ids in found if ids]


def _list_of(tokens: frozenset[int]) -> list[array[int]]:
    """Tokens as a list of lists, none of them empty."""
    return [array("i", sorted(tokens))] if tokens else []
