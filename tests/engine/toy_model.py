"""A model small enough to be run by hand: its logits depend on every token in its cache, and on nothing else."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from pio.cache.batch import Batch
from pio.cache.format import CacheFormat
from pio.cache.snapshot import Snapshot
from pio.dtypes import float32
from pio.engine.batch_manager import BatchManager
from pio.engine.handle import Handle, LogitsHandle
from pio.engine.media_encoder import Encoder
from pio.engine.random_numbers import mix, uniform
from pio.errors import CapacityError
from pio.tensor import Tensor
from pio.text.encoded_prompt import EncodedPrompt

VOCAB = 41
EOS = 40
STEP = 60.0  # seconds after which a test that waits for a step has failed


class ToyCache:
    """Keeps the tokens themselves, in blocks and once more in a state; what a stranger reads changes his logits."""

    format = CacheFormat.keys_and_values(float32, 1, 1)
    nbytes = block_bytes = state_bytes = 1

    def __init__(self, num_blocks: int, block_size: int, state_slots: int = 0) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.state_slots = state_slots  # those of running sequences among them
        self.blocks = [[-1] * block_size for _ in range(num_blocks)]
        self.states: dict[int, list[int]] = {}
        self.copied: list[tuple[int, int]] = []  # blocks

    def layer(self, index: int) -> None:
        """There are no tensors."""

    def copy_block(self, source: int, target: int) -> None:
        self.copied.append((source, target))
        self.blocks[target] = list(self.blocks[source])

    def copy_states(self, source: int, target: int) -> None:
        self.states[target] = list(self.states.get(source, ()))

    def snapshot(self, slot: int, length: int) -> Snapshot:
        state = self.states[slot]
        assert len(state) == length
        return Snapshot(length, 1, ((length,),), Tensor.from_list([float(token) for token in state]))

    def restore(self, slot: int, snapshot: Snapshot) -> None:
        assert snapshot.states is not None
        self.states[slot] = [int(token) for token in snapshot.states.tolist()]

    def truncate(self, slot: int, length: int) -> None:
        if length:
            raise CapacityError(f"the toy's state cannot go back to {length}")

    def free(self) -> None:
        self.blocks = []


class PagedToyCache(ToyCache):
    """Has blocks alone."""

    state_bytes = 0

    def truncate(self, slot: int, length: int) -> None:
        """There is nothing to do."""


class WaitingToyCache(ToyCache):
    """Has states that wait for tokens to stand."""

    tentative_tokens = 20

    def __init__(self, num_blocks: int, block_size: int, state_slots: int = 0) -> None:
        super().__init__(num_blocks, block_size, state_slots)
        self.waiting: dict[int, list[int]] = {}  # by slot

    def commit(self, slot: int, tokens: int) -> None:
        waiting = self.waiting.pop(slot)
        assert 0 <= tokens <= len(waiting)
        self.states[slot] += waiting[:tokens]


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
        self.vocab_size, self.hidden_size, self.levels, self.axes = VOCAB, 0, 0, 1
        self.encoder: Encoder | None = None
        self.max_positions = max_positions
        self.max_batch_tokens = max_batch_tokens
        self.max_batch_sequences = max_batch_sequences
        self.max_batch_outputs = max_batch_outputs
        self.steps: list[list[tuple[list[int], int]]] = []  # for each step each slice's tokens and past length
        self.poison: int | None = None  # a token that makes forward raise
        self.error: BaseException = ValueError("poison")
        self.not_finite: int | None = None  # a token after which the logits are NaN
        self.logits = toy_logits  # of tokens
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

    def new_batch(self, tokens: int, sequences: int, blocks: int, outputs: int) -> Batch:
        return Batch(tokens, sequences, blocks, outputs)

    def forward(self, batch: Batch, cache: ToyCache) -> Tensor:
        if self.slow:
            self.entered.release()
            assert self.stepping.acquire(timeout=STEP)
        tokens, starts, past = batch.tokens.tolist(), batch.starts.tolist(), batch.past.tolist()
        tables, positions = batch.block_tables.tolist(), batch.rotary_positions.tolist()[0]
        slots, sources = batch.slots.tolist(), batch.sources.tolist()
        tentative = {sequence.slot for sequence in batch.tentative} if cache.state_bytes else set[int]()
        waiting: dict[int, list[int]] = {}
        assert len({*slots[: batch.num_sequences]}) == batch.num_sequences
        assert starts[batch.num_sequences] == batch.num_tokens
        rows: list[list[float]] = []
        wanted = set(batch.output_rows.tolist()[: batch.num_outputs])
        self.steps.append(
            [(tokens[starts[s] : starts[s + 1]], past[s]) for s in range(batch.num_sequences)],
        )
        for s in range(batch.num_sequences):
            size, seen = cache.block_size, list(cache.states[sources[s]]) if past[s] and cache.state_bytes else []
            if not cache.state_bytes:
                seen = [token for block in tables[s][: -(-past[s] // size)] for token in cache.blocks[block]][: past[s]]
            assert len(seen) == past[s]
            for row in range(starts[s], starts[s + 1]):
                if tokens[row] == self.poison:
                    raise self.error
                assert positions[row] == len(seen)
                cache.blocks[tables[s][len(seen) // size]][len(seen) % size] = tokens[row]
                seen.append(tokens[row])
                if row in wanted:
                    kept = [token for block in tables[s] for token in cache.blocks[block]]
                    assert kept[: len(seen)] == seen, "blocks and state are of different sequences"
                    rows.append(self.logits(seen))
                    if tokens[row] == self.not_finite:
                        rows[-1][3] = float("nan")
            if slots[s] in tentative:
                waiting[slots[s]] = seen[past[s] :]
            else:
                cache.states[slots[s]] = seen
        if isinstance(cache, WaitingToyCache):
            assert sum(map(len, waiting.values())) <= cache.tentative_tokens
            cache.waiting = waiting  # those of the last step are forgotten
        assert isinstance(cache, WaitingToyCache) or not tentative
        assert len(rows) == batch.num_outputs
        if rows:
            self._out[: len(rows)].copy_(Tensor.from_list(rows))
        return self._out[: len(rows)]


class ToyManager(BatchManager):
    """Takes token ids as they are, too."""

    def submit(self, prompt: Sequence[int] | EncodedPrompt, *arguments: Any, **options: Any) -> Handle:
        return super().submit(encoded(prompt), *arguments, **options)

    def submit_logits(self, prompt: Sequence[int] | EncodedPrompt, **options: Any) -> LogitsHandle:
        return super().submit_logits(encoded(prompt), **options)

    def logits(self, prompt: Sequence[int] | EncodedPrompt) -> Tensor:
        return super().logits(encoded(prompt))


def encoded(prompt: Sequence[int] | EncodedPrompt) -> EncodedPrompt:
    return prompt if isinstance(prompt, EncodedPrompt) else EncodedPrompt(prompt)


def toy_logits(tokens: Sequence[int]) -> list[float]:
    """The logits after these tokens."""
    state = 1
    for token in tokens:
        state = mix(state * 31 + token + 1)
    return [uniform(mix(state), i) * 6 for i in range(VOCAB)]


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
