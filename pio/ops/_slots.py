"""Which states of a recurrent layer the sequences of a batch have."""

from __future__ import annotations

from typing import Protocol

from pio.tensor import Tensor


class Slots(Protocol):
    """Which tokens of a flat batch belong to which sequence, and where its state is (``pio.cache.batch.Batch``)."""

    slots: Tensor  # int32 (S,), pairwise different
    starts: Tensor  # int32 (S + 1,)
    past: Tensor  # int32 (S,); where it is 0, the state is zero whatever the slot holds
    num_sequences: int
