"""Where in a prompt the states of recurrent layers are worth keeping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

EARLY: Final = 4  # blocks that a beginning of no messages is found from at the second sight, however long its end is


class Point(NamedTuple):
    """A length of a sequence behind which its states are kept.

    Attributes:
        length: Tokens, whole blocks.
        always: Whether it is kept whatever else has to go; another is not where all that is kept saves more.
        parts: Whether it is likely that many ways part there.
    """

    length: int
    always: bool
    parts: bool


def state_points(begin: int, end: int, known: int, turns: Sequence[int], size: int, most: int) -> list[Point]:
    """Choose where a prompt's states are kept.

    In the order of use: behind its last whole block, which the next turn goes on from, or the same prompt once more;
    where it parts from what is known, for two have come by there; behind the first message, which others share, and the
    last but one; a ladder of halves towards the end, for who goes another way on the way: he computes at most as much
    again as the prompt had behind there; and one of doubles from the beginning, the first of which comes first where
    there are no messages.

    Args:
        begin: Blocks that are computed already.
        end: Whole blocks of the prompt, short of the token that wants logits.
        known: Blocks that are known, whether their states are kept or not.
        turns: Where messages end, in tokens.
        size: Tokens a block.
        most: How many there may be.

    Returns:
        The points, ascending, all behind ``begin`` and none behind ``end``.
    """
    shared = turns[0] // size if turns else EARLY
    last = next((turn // size for turn in reversed(turns) if turn // size < end), end)
    chosen = [end, known, shared, last]
    step = 1 << max(0, (end - begin - 1).bit_length() - 1)  # the largest power of two below their distance
    while step >= 1:
        chosen.append(end - step)
        step //= 2
    chosen.extend(EARLY << i for i in range(max(0, end // EARLY).bit_length()))
    first = list(dict.fromkeys(block for block in chosen if begin < block <= end))[:most]
    return [Point(b * size, b in (end, known), bool(turns) and b == shared) for b in sorted(first)]
