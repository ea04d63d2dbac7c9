"""What changes the logits of one answer before its tokens are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pio.dtypes import int32
from pio.ops.bans import Bans
from pio.ops.token_mask import check_token
from pio.tensor import Tensor


class Penalties:
    """Penalties, biases and bans of one answer, with counts of its tokens that are kept as it grows.

    Memory for the longest answer is taken at once; counting a token costs the same however many there are.

    Attributes:
        editing: Whether penalties or biases, and not bans alone, change logits.
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
        self.editing = self._counting or bool(bias)
        known = dict.fromkeys(prompt) if repetition != 1 else {}
        for token in (*known, *(bias or {})):
            check_token(token, vocab_size)
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
