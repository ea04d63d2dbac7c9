"""Rows of logits for the tests of what chooses tokens."""

import math

from hypothesis import assume
from hypothesis import strategies as st

from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor

LOGITS = st.floats(-30, 30, width=32) | st.sampled_from([-math.inf, 0.0, 2.0])


@st.composite
def rows(draw: st.DrawFn, least: int = 1, most: int = 300) -> list[float]:
    """At least one logit is finite."""
    row = draw(st.lists(LOGITS, min_size=least, max_size=most))
    assume(max(row) > -math.inf)
    return row


def tensor(row: list[float]) -> Tensor:
    """The row as the second of three: the others would be chosen where a row offset is lost."""
    return Tensor.from_list([[50.0 - i for i in range(len(row))], row, [float(i + 60) for i in range(len(row))]])


def choose(sampler: Sampler, logits: Tensor, choice: Choice, row: int = 1, u: float = 0.0) -> Choice:
    """Let a sampler choose one token; the choice as it came out."""
    choice.aim(row, u)
    sampler.sample(logits, [choice])
    if choice.token < 0:
        raise choice.refusal(logits)
    return choice
