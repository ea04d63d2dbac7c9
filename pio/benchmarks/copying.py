"""How fast an answer comes that was foreseen but for small edits, and how fast without looking ahead."""

from __future__ import annotations

import random
from array import array
from typing import Final

from pio.benchmarks.machine import ratio
from pio.benchmarks.report import Copying, Plan, Series
from pio.benchmarks.subject import token_ids
from pio.engine.drafts.speculation import Speculation
from pio.engine.drafts.suffix_drafter import SuffixDrafter
from pio.engine.generation import Generation
from pio.errors import ConfigError
from pio.plugin import TextModelPlugin

SEED: Final = 1
HISTORY: Final = 1 << 22  # bytes of what is copied, at most
ROOM: Final = 1 << 40  # bytes of the indexes of what runs, which are to be small beside it


class Copies:
    """Replays answers as if they copied a text.

    A model with random weights copies nothing, and of a trained one nobody knows beforehand how far it will. So what it
    answers anyway, drawn by a seed, is taken down once. Edited here and there it is given to a drafter as an earlier
    answer of the same caller, which is searched, followed, lost at an edit and found again like any other; and the
    answer is made once more. How many drafted tokens are accepted is thus decided by the edits, and all else is real.
    """

    def __init__(self, model: TextModelPlugin, plan: Plan) -> None:
        """Take the answers down, and run once with drafts, so that the first steps of every size are behind.

        Raises:
            ConfigError: The model drafts nothing.
        """
        self._model, self._plan = model, plan
        self._plain: list[float] = []
        self._drafted: list[float] = []
        self._last: list[Generation] = []
        if not plan.copy:
            return
        speculation = model.loaded.manager.speculation
        if speculation is None:
            raise ConfigError("--copy: this model drafts no tokens, for its states cannot wait for any; leave it out")
        self._speculation: Speculation = speculation
        self._answers = [answer.token_ids for answer in self._answer()]
        self._with_drafts()

    def round(self) -> None:
        """Answer without drafts, and with them."""
        if self._plan.copy:
            self._plain.append(_speed(self._answer()))
            self._last = self._with_drafts()
            self._drafted.append(_speed(self._last))

    def summed_up(self) -> Copying | None:
        """Return what was found; None where nothing was to be."""
        if not self._plan.copy:
            return None
        timings = [answer.timings for answer in self._last]
        return Copying(
            new_tokens=self._plan.copy_tokens,
            edits_every=self._plan.copy,
            plain=Series.of(self._plain),
            drafted=Series.of(self._drafted),
            times_as_fast=ratio(self._drafted, self._plain),
            drafted_tokens=sum(found.drafted for found in timings),
            accepted_tokens=sum(found.accepted for found in timings),
            checks=sum(found.checks for found in timings),
            equal=sum(answer.token_ids == told for answer, told in zip(self._last, self._answers, strict=True)),
        )

    def _answer(self) -> list[Generation]:
        """Answer without drafts; with seeds, for the likeliest tokens of random weights soon go round in circles."""
        self._speculation.drafter = None
        return self._generate()

    def _with_drafts(self) -> list[Generation]:
        drafter = SuffixDrafter(HISTORY, running=ROOM)
        for answer in self._answers:
            drafter.history.add(None, edited(answer, self._plan.copy, self._model.loaded.model.vocab_size))
        self._speculation.drafter = drafter
        try:
            return self._generate()
        finally:
            self._speculation.drafter = None

    def _generate(self) -> list[Generation]:
        plan = self._plan
        prompts = [token_ids(self._model, plan.depth, shift) for shift in range(plan.sequences)]
        return self._model.infer_batch(
            prompts, max_new_tokens=plan.copy_tokens, temperature=1.0, seed=SEED, ignore_eos=True
        )


def edited(text: list[int], every: int, vocab_size: int) -> array[int]:
    """Return a text with an edit every so many tokens on average: another one, one more, or one less."""
    draw, copy = random.Random(SEED), array("i")
    for token in text:
        kind = draw.randrange(3) if draw.random() < 1 / every else -1
        other = draw.randrange(vocab_size)
        copy.extend([other] if kind == 0 else [token, other] if kind == 1 else [] if kind == 2 else [token])
    return copy


def _speed(answers: list[Generation]) -> float:
    """Tokens a second of all answers together."""
    return sum(answer.timings.tokens_per_second for answer in answers)
