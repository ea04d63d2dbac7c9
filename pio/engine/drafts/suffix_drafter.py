"""Proposes what stood behind the same tokens before: in the prompt, in the answer, or in earlier ones of the caller."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Collection
from typing import Final

from pio.engine.drafts.acceptance import Acceptance
from pio.engine.drafts.answer_history import END, AnswerHistory
from pio.engine.drafts.drafter import Draft
from pio.engine.drafts.suffix_index import LONGEST, RUN, SuffixIndex, index_bytes
from pio.engine.sequence import Sequence

SLICE: Final = 4096  # places of prompts and earlier answers that are indexed between two steps, some 2 ms
PLACES: Final = 1 << 14  # of an answer that are found as fast as ever
HELD: Final = 8  # so many equal tokens are a copy, which one other token does not end


class SuffixDrafter:
    """Follows an answer through the texts in which its last tokens were found.

    A place that is found is followed from token to token as long as these are the ones that stand there, without
    another search. Where a token differs behind a long stretch, the text behind it is tried, for mostly one token was
    exchanged; then the last tokens are looked up again.
    """

    def __init__(self, history: int, running: int) -> None:
        """Begin without any text.

        Args:
            history: Bytes that earlier answers may take.
            running: Bytes that indexes of running sequences may take; those for whom nothing is left have no drafts.
        """
        self.history = AnswerHistory(history)
        self.nbytes = history + running
        self._left = running
        self._acceptance = Acceptance(weight=4.0, most=512.0)
        self._trails: dict[Sequence, _Trail] = {}
        self._prompts: dict[object, _Prompt] = {}  # that several answers share, by family

    def propose(self, wanted: Collection[tuple[Sequence, int]]) -> list[Draft | None]:
        """Return what stands behind the longest stretch of tokens with which each of these ends."""
        found: list[Draft | None] = []
        trails = [self._trails.get(sequence) or self._begin(sequence) for sequence, _ in wanted]
        places = SLICE
        for trail in trails:
            places -= 0 if trail is None else trail.prompt.index.extend(places)
        self.history.extend(places)
        for (sequence, most), trail in zip(wanted, trails, strict=True):
            if trail is not None:
                trail.follow(self.history.of(sequence.salt))
            found.append(None if trail is None or trail.text is None else trail.draft(most))
        return found

    def end(self, sequence: Sequence) -> None:
        """Keep what a sequence has of an answer for those that come later, and let go of it."""
        trail = self._trails.pop(sequence, None)
        if trail is not None:
            self._left += trail.nbytes
            trail.prompt.users -= 1
            if not trail.prompt.users:
                self._left += trail.prompt.nbytes
                self._prompts.pop(sequence.family, None)
        self.history.add(sequence.salt, sequence.tokens[sequence.prompt_length :])

    def clear(self) -> None:
        """Forget all texts."""
        for trail in self._trails.values():
            self._left += trail.nbytes
        for prompt in {id(trail.prompt): trail.prompt for trail in self._trails.values()}.values():
            self._left += prompt.nbytes
        self._trails.clear()
        self._prompts.clear()
        self.history.clear()

    def _begin(self, sequence: Sequence) -> _Trail | None:
        """Follow an answer from now on; None where there is no room for that."""
        family, length = sequence.family, sequence.prompt_length
        prompt = None if family is None else self._prompts.get(family)
        room = len(sequence.tokens) - length + sequence.consumer.room(sequence)
        own = index_bytes(min(room, PLACES), room)
        shared = 0 if prompt is not None else index_bytes(length, length, length)
        if own + shared > self._left:
            return None
        self._left -= own + shared
        if prompt is None:
            prompt = _Prompt(sequence.tokens[:length], shared)
            if family is not None:
                self._prompts[family] = prompt
        prompt.users += 1
        trail = self._trails[sequence] = _Trail(sequence, prompt, self._acceptance, min(room, PLACES), own)
        return trail


def running_bytes(context: int, sequences: int, share: int) -> int:
    """Return what indexes of running sequences may take.

    Args:
        context: Tokens of a prompt and its answer at most.
        sequences: That run at once.
        share: Bytes that are enough for all; but one of the longest sequences always has room.
    """
    longest = index_bytes(context, context, context) + index_bytes(min(context, PLACES), 0)
    return max(longest, min(sequences * longest, share))


class _Prompt:
    """The index of a prompt, what it takes, and how many answers use it."""

    __slots__ = ("index", "nbytes", "users")

    def __init__(self, tokens: array[int], nbytes: int) -> None:
        self.index = SuffixIndex(tokens, 0, len(tokens))
        self.nbytes = nbytes
        self.users = 0


class _Trail:
    """Where an answer is followed.

    Attributes:
        nbytes: Of what it keeps of the answer.
        prompt: Of the sequence.
        text: In which its last tokens were found; None where they were not.
    """

    __slots__ = ("_above", "_acceptance", "_answer", "_at", "_length", "_seen", "_tokens", "nbytes", "prompt", "text")

    def __init__(self, sequence: Sequence, prompt: _Prompt, acceptance: Acceptance, places: int, nbytes: int) -> None:
        self.nbytes = nbytes
        self.prompt = prompt
        self.text: array[int] | None = None
        self._tokens = sequence.tokens
        self._answer = SuffixIndex(sequence.tokens, sequence.prompt_length, places)
        self._acceptance = Acceptance(acceptance)
        self._above = acceptance
        self._at = self._length = 0  # in the text, and how many tokens before there are equal
        self._seen = len(sequence.tokens)

    def follow(self, earlier: list[SuffixIndex]) -> None:
        """Go on behind the tokens that have come; look them up where the text goes on otherwise.

        Args:
            earlier: Texts of the caller, the newest first.
        """
        tokens = self._tokens
        for i in range(self._seen, len(tokens)):
            if self.text is None:
                break
            self._pass(self.text, tokens[i])
        self._seen = len(tokens)
        self._answer.extend(SLICE)
        if self.text is None or self._length < RUN or self._ends(self.text):
            self._search(earlier)
        if self.text is not None and self._ends(self.text):
            self.text = None

    def draft(self, most: int) -> Draft:
        """Return what stands there; an answer that ends as it stood shortly before is thought to go round and round."""
        text, at = self.text, self._at
        assert text is not None
        survivals = self._acceptance.survivals(self._length, most)
        found = text[at : at + len(survivals)]
        if text is self._tokens and len(found) < len(survivals):
            found = (found * (len(survivals) // len(found) + 1))[: len(survivals)]
        elif END in found:
            found = found[: found.index(END)]
        return Draft(found, survivals[: len(found)])

    def _pass(self, text: array[int], token: int) -> None:
        """Note whether a token is the one that stands there, and go on behind it."""
        if self._ends(text):
            self.text = None
            return
        hit = text[self._at] == token
        self._acceptance.count(self._length, hit)
        self._above.count(self._length, hit)
        self._at += 1
        if hit:
            self._length += 1
        elif self._length >= HELD:
            self._length = 0
        else:
            self.text = None

    def _ends(self, text: array[int]) -> bool:
        """Whether nothing stands there: it is the end of the text, or that of an answer in it."""
        return self._at >= len(text) or text[self._at] < 0

    def _search(self, earlier: list[SuffixIndex]) -> None:
        """Take the place with the longest stretch of equal tokens; of equals that of the answer, then of the prompt."""
        length = RUN - 1
        for index in (self._answer, self.prompt.index, *earlier):
            place, found = index.longest(self._tokens, length)
            if found > length:
                self.text, self._at, self._length = index.tokens, place, found
                length = found
                if found == LONGEST:
                    return
