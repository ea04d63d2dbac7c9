"""Choosing tokens from logits, with scratch that is made once for a vocabulary."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Mapping
from typing import Final

from pio.device import ALIGNMENT, MemoryBudget
from pio.dtypes import int32
from pio.errors import ConfigError, NumericalError, TensorError
from pio.kernels import launcher, sizes
from pio.memory import step
from pio.memory.arena import Arena
from pio.ops._check import check
from pio.ops.bans import Bans
from pio.tensor import Tensor

kernels = launcher.module("sampling")
top_k_kernels = launcher.module("top_k")
# How many candidates are put in order to find a nucleus of unknown size, before all of them are.
RUNGS: Final = (256, 4096)


class Penalties:
    """Penalties, biases and bans of one answer, with counts of its tokens that are kept as it grows.

    Memory for the longest answer is taken at once; counting a token costs the same however many there are.
    """

    def __init__(
        self,
        prompt: Iterable[int],
        max_new_tokens: int,
        vocab_size: int,
        *,
        repetition: float = 1.0,
        presence: float = 0.0,
        frequency: float = 0.0,
        bias: Mapping[int, float] | None = None,
        bans: Bans | None = None,
    ) -> None:
        """Begin with the tokens of the prompt, which only the repetition penalty looks at.

        Args:
            prompt: Token ids.
            max_new_tokens: The most tokens that ``count`` will be called for.
            vocab_size: Token ids are below it.
            repetition: Divides positive and multiplies negative logits of tokens in prompt or answer.
            presence: Subtracted once for a token in the answer.
            frequency: Subtracted for each time the answer has a token.
            bias: Added to single logits.
            bans: Tokens that must not come next, whatever their logits are.
        """
        self.repetition, self.presence, self.frequency = repetition, presence, frequency
        self.bans = bans
        self._counting = repetition != 1 or presence != 0 or frequency != 0
        known = dict.fromkeys(prompt) if repetition != 1 else {}
        for token in (*known, *(bias or {})):
            if not 0 <= token < vocab_size:
                raise ConfigError(f"token id {token} is outside the vocabulary; expected 0 to {vocab_size - 1}")
        capacity = min(len(known) + max_new_tokens, vocab_size) if self._counting else 0
        self.ids = Tensor.zeros((capacity,), int32)
        self.counts = Tensor.zeros((capacity,), int32)
        self._ids, self._counts = self.ids.memoryview(), self.counts.memoryview()
        self._slots: dict[int, int] = {}
        for token in known:
            self._slot(token)
        self.bias_ids = Tensor.from_list(list(bias or ()), int32)
        self.biases = Tensor.from_list(list((bias or {}).values()))

    @property
    def seen(self) -> int:
        """Distinct tokens that are counted."""
        return len(self._slots)

    def count(self, token: int) -> None:
        """Note one more token of the answer."""
        if self._counting:
            self._counts[self._slot(token)] += 1
        if self.bans is not None:
            self.bans.count(token)

    def _slot(self, token: int) -> int:
        slot = self._slots.get(token)
        if slot is None:
            slot = self._slots[token] = len(self._slots)
            self._ids[slot] = token
        return slot


class Sampler:
    """Chooses tokens from rows of logits, which it leaves as they are; for one thread at a time.

    Attributes:
        vocab_size: Length of a row of logits.
        nbytes: Bytes of its scratch.
    """

    def __init__(self, vocab_size: int, budget: MemoryBudget | None = None) -> None:
        """Make the scratch.

        Args:
            vocab_size: Length of a row of logits.
            budget: Counts the memory.

        Raises:
            OutOfMemoryError: The budget or the system refuses.
        """
        self.vocab_size = vocab_size
        blocks = -(-vocab_size // sizes.MAXIMA)
        nbytes = 3 * _whole_lines(4 * vocab_size) + 2 * _whole_lines(4 * blocks)
        arena = Arena(nbytes, budget=budget, what="the sampler's scratch")
        self.nbytes = nbytes
        self._row = arena.take((vocab_size,))
        self._maxima = arena.take((blocks,))
        self._sums = arena.take((blocks,))
        self._values = arena.take((vocab_size,))
        self._ids = arena.take((vocab_size,), int32)
        self._sorted_values, self._sorted_ids = self._values.memoryview(), self._ids.memoryview()

    def likeliest(self, logits: Tensor, row: int, penalties: Penalties | None = None) -> int:
        """Return the token with the largest logit; among equals the lowest id.

        Args:
            logits: float32 (rows, vocabulary).
            row: Which row.
            penalties: Applied to a copy of it.

        Raises:
            NumericalError: The row has a NaN or +inf, or nothing but -inf.
        """
        x, largest = self._begin(logits, row, penalties)
        return int(kernels.first_index(x, self._maxima.address, self.vocab_size, largest))

    def draw(
        self,
        logits: Tensor,
        row: int,
        u: float,
        temperature: float,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        penalties: Penalties | None = None,
    ) -> int:
        """Draw a token: penalties, temperature, then only the top k, of these the top p, of these the min p.

        Args:
            logits: float32 (rows, vocabulary).
            row: Which row.
            u: A uniform random number, 0 <= u < 1; the same one gives the same token.
            temperature: Above 0; logits are divided by it.
            top_k: How many candidates, 0 for all; among equal logits the lower ids.
            top_p: The likeliest candidates until they have this probability; 1 for all.
            min_p: Candidates at least this fraction as likely as the likeliest; 0 for all.
            penalties: Applied to a copy of the row.

        Raises:
            NumericalError: The row has a NaN or +inf, or nothing but -inf.
        """
        x, largest = self._begin(logits, row, penalties)
        n = self.vocab_size
        if 0 < top_k < n:
            return self._draw_sorted(x, top_k, None, temperature, top_p, min_p, u)
        scale = 1.0 / temperature
        sums = self._sums.address
        total = kernels.exp_sums(sums, x, n, largest, scale)
        if top_p >= 1.0 and min_p <= 0.0:
            return int(kernels.draw_any(x, sums, n, largest, scale, total, u))
        for k in RUNGS:
            if k < n:
                token = self._draw_sorted(x, k, total, temperature, top_p, min_p, u)
                if token >= 0:
                    return token
        return self._draw_sorted(x, n, None, temperature, top_p, min_p, u)

    def logprobs(
        self, logits: Tensor, row: int, token: int, top: int = 0
    ) -> tuple[float, tuple[tuple[int, float], ...]]:
        """Return a token's natural log probability and the ``top`` likeliest tokens with theirs, best first.

        Args:
            logits: float32 (rows, vocabulary).
            row: Which row.
            token: The token.
            top: How many of the likeliest; among equals the lower ids first.

        Raises:
            NumericalError: The row has a NaN or +inf, or nothing but -inf.
        """
        x, largest = self._begin(logits, row, None)
        log_total = largest + math.log(kernels.exp_sums(self._sums.address, x, self.vocab_size, largest, 1.0))
        chosen = ctypes.c_float.from_address(x + 4 * token).value - log_total
        k = min(top, self.vocab_size)
        if k == 0:
            return chosen, ()
        self._sort(x, k)
        return chosen, tuple((self._sorted_ids[i], self._sorted_values[i] - log_total) for i in range(k))

    def _begin(self, logits: Tensor, row: int, penalties: Penalties | None) -> tuple[int, float]:
        """Return the address of the row to choose from and its largest element; the blocks' maxima are ready."""
        step.refuse("chooses a token", "tokens are chosen behind the step, when its logits are complete")
        check("sampling", "logits", logits, (None, self.vocab_size))
        if not 0 <= row < logits.shape[0]:
            raise TensorError(f"sampling: row {row} is outside logits of shape {logits.shape}")
        n, x = self.vocab_size, logits.address + 4 * row * self.vocab_size
        scaled = kernels.scaled_sum(x, n)
        if math.isnan(scaled) or scaled == math.inf:
            raise _not_finite(logits, row)
        if penalties is not None:
            ctypes.memmove(self._row.address, x, 4 * n)
            x = self._row.address
            _penalize(x, penalties)
        largest = top_k_kernels.block_maxima(self._maxima.address, x, n)
        if largest == -math.inf and penalties is not None and penalties.bans is not None:
            raise _nothing_left(logits, row)
        if not -math.inf < largest < math.inf:
            raise _not_finite(logits, row)
        return x, largest

    def _sort(self, x: int, k: int) -> None:
        n = self.vocab_size
        top_k_kernels.top_k(self._values.address, self._ids.address, x, self._maxima.address, n, k)

    def _draw_sorted(
        self, x: int, k: int, total: float | None, temperature: float, top_p: float, min_p: float, u: float
    ) -> int:
        """Draw among the k likeliest, all there are unless ``total`` is given; -1 where they may be too few."""
        self._sort(x, k)
        mass = kernels.weigh(self._values.address, k, temperature)
        complete = total is None
        whole = mass if total is None else total
        at = int(kernels.draw_sorted(self._values.address, k, int(complete), whole, top_p, min_p, u))
        return self._sorted_ids[at] if at >= 0 else -1


def _whole_lines(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _penalize(row: int, p: Penalties) -> None:
    kernels.penalize(
        row,
        p.ids.address,
        p.counts.address,
        p.seen,
        p.repetition,
        p.presence,
        p.frequency,
        p.bias_ids.address,
        p.biases.address,
        p.biases.size,
    )
    if p.bans is not None:
        for ids in p.bans.next:
            address, count = ids.buffer_info()
            kernels.forbid(row, address, count)


def _nothing_left(logits: Tensor, row: int) -> ConfigError | NumericalError:
    """The error where no token can come next: bans forbid all that the model allows, if it allows any."""
    if max(logits[row].memoryview()) == -math.inf:
        return _not_finite(logits, row)
    return ConfigError(
        "suppress_tokens, begin_suppress_tokens, bad_words_ids, min_new_tokens and no_repeat_ngram_size together "
        "forbid every token that could come next; forbid fewer, or end the answer earlier with max_new_tokens"
    )


def _not_finite(logits: Tensor, row: int) -> NumericalError:
    """The error that names the first bad element."""
    found = "nothing but -inf"
    for token, value in enumerate(logits[row].memoryview()):
        if math.isnan(value) or value == math.inf:
            found = f"{value} for token id {token}"
            break
    return NumericalError(
        f"the model produced logits that cannot be sampled: found {found}, expected finite numbers; the weights hold "
        "NaN or infinity, or overflow in their type"
    )
