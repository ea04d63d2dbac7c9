"""Drafts, right and wrong, in models with recurrent layers: every logit is that of the text computed cold."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from golden_case import config_of, logits_bytes, longest_prompt

import pio
from pio.cache.protocol import tentative_tokens
from pio.testing.compare import bits

HERE = Path(__file__).parent / "qwen3_next"
CASES = sorted(folder.name for folder in HERE.iterdir())
SEQUENCES, LENGTH = 3, 40
ROWS = 5  # of each sequence's last tokens


class Steps:
    """Sequences of one model, each with its text, blocks of its own and a slot; all that they compute is compared."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.decoder = model.loaded.model
        ids, vocabulary = longest_prompt(folder), config_of(folder)["vocab_size"]
        self.vocabulary = vocabulary
        self.texts = [[(token + 3 * s) % vocabulary for token in ids[s : s + LENGTH]] for s in range(SEQUENCES)]
        rows = [logits_bytes(model, text) for text in self.texts]
        size = 4 * vocabulary
        self.cold = [[data[i * size : (i + 1) * size] for i in range(LENGTH)] for data in rows]
        self.blocks = -(-LENGTH // 32) + 1
        self.cache = self.decoder.new_cache(SEQUENCES * self.blocks * 32)
        self.batch = self.decoder.new_batch(SEQUENCES * LENGTH, SEQUENCES, self.blocks, SEQUENCES * ROWS)
        self.slots = list(range(SEQUENCES))
        self.done = [0] * SEQUENCES

    def right(self, sequence: int, count: int) -> list[int]:
        """The next tokens of a text."""
        return self.texts[sequence][self.done[sequence] : self.done[sequence] + count]

    def wrong(self, sequence: int, count: int) -> list[int]:
        """Tokens that do not follow."""
        following = self.texts[sequence][self.done[sequence] :][:count]
        return [(token + 1) % self.vocabulary for token in following]

    def step(self, *slices: tuple[int, list[int], bool]) -> None:
        """Compute next tokens of sequences, tentative or not, and compare those rows whose tokens are of the text."""
        self.batch.begin()
        for sequence, tokens, tentative in slices:
            blocks = range(sequence * self.blocks, (sequence + 1) * self.blocks)
            past, slot = self.done[sequence], self.slots[sequence]
            self.batch.add(tokens, past, blocks, min(ROWS, len(tokens)), slot, tentative=tentative)
        logits, row = self.decoder.forward(self.batch, self.cache), 0
        for sequence, tokens, tentative in slices:
            past = self.done[sequence]
            for i in range(max(0, len(tokens) - ROWS), len(tokens)):
                if self.texts[sequence][past : past + i + 1] == tokens[: i + 1]:
                    assert bits(logits[row]) == self.cold[sequence][past + i], f"token {past + i} of {sequence}"
                row += 1
            if not tentative:
                self.done[sequence] += len(tokens)

    def commit(self, sequence: int, tokens: int) -> None:
        """Let the first tokens of a draft stand."""
        self.cache.commit(self.slots[sequence], tokens)
        self.done[sequence] += tokens

    def finish(self, sequence: int) -> None:
        """Decode what is left of a text."""
        while self.done[sequence] < LENGTH:
            self.step((sequence, self.right(sequence, 1), False))


@pytest.fixture(scope="module", params=[(case, threads) for case in CASES for threads in (1, 2)], ids=str)
def made(request: pytest.FixtureRequest) -> Any:
    case, threads = request.param
    with pio.load(HERE / case, threads=threads, max_batch_sequences=SEQUENCES) as model:
        steps = Steps(model, HERE / case)
        yield steps
        steps.cache.free()


@pytest.fixture
def steps(made: Steps) -> Steps:
    made.done, made.slots = [0] * SEQUENCES, list(range(SEQUENCES))
    return made


@pytest.mark.parametrize("stand", range(5))
def test_drafts_stand_up_to_any_of_them(steps: Steps, stand: int) -> None:
    """Behind a prefix, behind nothing at all, and twice in a row with nothing between."""
    for sequence, prefix in enumerate((17, 0, 9)):
        if prefix:
            steps.step((sequence, steps.right(sequence, prefix), False))
        for _ in range(2):
            drafts = steps.right(sequence, stand) + steps.wrong(sequence, 4)[stand:]
            steps.step((sequence, drafts, True))
            steps.commit(sequence, stand)
        steps.finish(sequence)


def test_a_step_without_a_commit_leaves_no_trace(steps: Steps) -> None:
    steps.step((0, steps.right(0, 11), False))
    before = steps.cache.snapshot(0, 11)
    for drafts in (steps.wrong(0, 5), steps.right(0, 5), steps.right(0, 1)):
        steps.step((0, drafts, True))
        assert bits(steps.cache.snapshot(0, 11).states) == bits(before.states)
    steps.finish(0)


def test_sequences_of_all_kinds_share_a_step(steps: Steps) -> None:
    """Drafts of two sequences, with other counts and in other slots, beside a prompt in pieces, or a token."""
    steps.slots = [2, 0, 1]
    for sequence in (0, 1):
        steps.step((sequence, steps.right(sequence, 5 + sequence), False))
    for chunk in (7, 1, 8):
        first, second = steps.right(0, 2) + steps.wrong(0, 4)[2:], steps.right(1, 3)
        steps.step((1, second, True), (2, steps.right(2, chunk), False), (0, first, True))
        steps.commit(0, 2)
        steps.commit(1, 1)
    for sequence in range(SEQUENCES):
        steps.finish(sequence)


@pytest.mark.parametrize("seed", range(4))
def test_anything_may_happen_between(steps: Steps, seed: int) -> None:
    """Slots that are swapped, forks, snapshots that are put back, sequences that begin again, in any order."""
    rng, marks = random.Random(seed), {}
    for _ in range(60):
        running = [s for s in range(SEQUENCES) if steps.done[s] < LENGTH and rng.random() < 0.8]
        plan, stands = [], {}
        for s in rng.sample(running, len(running)):
            count, tentative = rng.randint(1, min(5, LENGTH - steps.done[s])), rng.random() < 0.7
            stands[s] = rng.randint(0, count) if tentative else None
            drafts = steps.right(s, count)
            if tentative:
                drafts = drafts[: stands[s]] + steps.wrong(s, count)[stands[s] :]
            plan.append((s, drafts, tentative))
        if plan:
            steps.step(*plan)
        for s in (s for s, _, tentative in plan if tentative):
            if rng.random() < 0.2:  # taken between the step and the commit, it is of the states before
                marks[s] = steps.cache.snapshot(steps.slots[s], steps.done[s])
            if rng.random() < 0.9:
                steps.commit(s, rng.randint(0, stands[s]))
        change, s = rng.random(), rng.randrange(SEQUENCES)
        if change < 0.15:
            steps.cache.truncate(steps.slots[s], 0)
            steps.done[s] = 0
            marks.pop(s, None)
        elif change < 0.3 and s in marks:
            steps.cache.restore(steps.slots[s], marks[s])
            steps.done[s] = marks[s].length
        elif change < 0.5:
            swap(steps, s, (s + 1) % SEQUENCES)
    for s in range(SEQUENCES):
        steps.finish(s)


def swap(steps: Steps, one: int, other: int) -> None:
    """Let two sequences change slots: one by a snapshot, the other by a copy."""
    taken = steps.cache.snapshot(steps.slots[one], steps.done[one])
    steps.cache.copy_states(steps.slots[other], steps.slots[one])
    steps.cache.restore(steps.slots[other], taken)
    steps.slots[one], steps.slots[other] = steps.slots[other], steps.slots[one]


def test_too_many_drafts_are_refused_before_anything_is_computed(steps: Steps) -> None:
    room = tentative_tokens(steps.cache)
    assert 0 < room < 2 * LENGTH
    steps.step((0, steps.right(0, 3), False))
    with pytest.raises(pio.CapacityError, match=f"tokens of a step are tentative, this cache has room for {room}"):
        steps.step((1, steps.right(1, LENGTH), True), (2, steps.right(2, room + 1 - LENGTH), True))
    steps.finish(0)


def test_rows_to_compare_with_differ(steps: Steps) -> None:
    """Or nothing would be shown."""
    assert len({row for rows in steps.cold for row in rows}) == SEQUENCES * LENGTH
