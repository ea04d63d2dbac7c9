"""A model small enough to be run by hand: its logits depend on every token in its cache, and on nothing else."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pio.cache.batch import Batch
from pio.engine.random_numbers import mix, uniform
from pio.tensor import Tensor

VOCAB = 41
EOS = 40
STEP = 60.0  # seconds after which a test that waits for a step has failed


class ToyCache:
    """Keeps the tokens themselves; a block that is read by a stranger changes his logits."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.slots = [-1] * (num_blocks * block_size)


class ToyModel:
    """Computes logits of a row as a hash of all tokens before it, read back through the block table."""

    def __init__(
        self,
        *,
        max_positions: int = 64,
        max_batch_tokens: int = 16,
        max_batch_sequences: int = 4,
        max_batch_outputs: int = 6,
    ) -> None:
        self.vocab_size = VOCAB
        self.max_positions = max_positions
        self.max_batch_tokens = max_batch_tokens
        self.max_batch_sequences = max_batch_sequences
        self.max_batch_outputs = max_batch_outputs
        self.steps: list[list[tuple[list[int], int]]] = []  # for each step each slice's tokens and past length
        self.poison: int | None = None  # a token that makes forward raise
        self.error: BaseException = ValueError("poison")
        self.not_finite: int | None = None  # a token after which the logits are NaN
        self.slow = False  # forward waits for `step`
        self.stepping = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self._out = Tensor.zeros((max_batch_outputs, VOCAB))

    def step(self, count: int = 1) -> None:
        """Let a slow model do that many steps."""
        for _ in range(count):
            self.stepping.release()

    def wait_for_step(self) -> None:
        """Wait until a slow model stands inside a step."""
        assert self.entered.acquire(timeout=STEP)

    def forward(self, batch: Batch, cache: ToyCache) -> Tensor:
        if self.slow:
            self.entered.release()
            assert self.stepping.acquire(timeout=STEP)
        tokens, starts, past = batch.tokens.tolist(), batch.starts.tolist(), batch.past.tolist()
        tables, positions = batch.block_tables.tolist(), batch.rotary_positions.tolist()[0]
        assert starts[batch.num_sequences] == batch.num_tokens
        rows: list[list[float]] = []
        wanted = set(batch.output_rows.tolist()[: batch.num_outputs])
        self.steps.append(
            [(tokens[starts[s] : starts[s + 1]], past[s]) for s in range(batch.num_sequences)],
        )
        for s in range(batch.num_sequences):
            at = [table * cache.block_size + i for table in tables[s] for i in range(cache.block_size)]
            for row in range(starts[s], starts[s + 1]):
                if tokens[row] == self.poison:
                    raise self.error
                assert positions[row] == past[s] + row - starts[s]
                cache.slots[at[positions[row]]] = tokens[row]
                if row in wanted:
                    rows.append(toy_logits([cache.slots[i] for i in at[: positions[row] + 1]]))
                    if tokens[row] == self.not_finite:
                        rows[-1][3] = float("nan")
        assert len(rows) == batch.num_outputs
        if rows:
            self._out[: len(rows)].copy_(Tensor.from_list(rows))
        return self._out[: len(rows)]


def toy_logits(tokens: Sequence[int]) -> list[float]:
    """The logits after these tokens."""
    state = 1
    for token in tokens:
        state = mix(state * 31 + token + 1)
    return [uniform(state, i) * 6 for i in range(VOCAB)]


def toy_greedy(prompt: Sequence[int], count: int) -> list[int]:
    """The greedy answer, computed alone and from scratch."""
    tokens = list(prompt)
    for _ in range(count):
        logits = toy_logits(tokens)
        tokens.append(logits.index(max(logits)))
    return tokens[len(prompt) :]


# A few tokens are longer than a character and one begins a character that the next completes.
PIECES = {0: "ab", 1: "abc", 2: "c", 3: "", 4: "é", 5: "ba"}


def toy_text(token: int) -> str:
    return PIECES.get(token, chr(ord("A") + token))


class ToyDetokenizer:
    """Gives each token's text one token late, so that the end of an answer has something to flush."""

    def __init__(self, skip_special_tokens: bool) -> None:
        self.skipped = frozenset([EOS] if skip_special_tokens else [])
        self._late = ""

    def push(self, token_id: int) -> str:
        out, self._late = self._late, "" if token_id in self.skipped else toy_text(token_id)
        return out

    def flush(self) -> str:
        out, self._late = self._late, ""
        return out
