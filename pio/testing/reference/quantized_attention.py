"""Attention over keys, values, queries and probabilities of eight bits, in float64 otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

GROUP, BLOCK = 32, 32  # numbers that share a scale; positions of a cache block
SPAN = 4  # blocks that are taken together where every query sees everything
LARGEST = 127
SMALLEST = 1e-30  # nothing larger counts as zeros
LEAST = -102  # exponent of a query's smallest scale

Rounded = tuple[float, Sequence[int]]  # scale, numbers


class Output(NamedTuple):
    """A query's output, and how far each of its numbers may be off."""

    numbers: list[float]
    slack: list[float]


def quantized_attention(
    q: list[list[list[float]]],
    k: Sequence[Sequence[Sequence[Rounded]]],
    v: Sequence[Sequence[Rounded]],
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    precision: float = 0.0,
) -> list[list[Output]]:
    """Attend for the last tokens of one sequence.

    out[t, h] = sum_j c_j b_j v[j, h // group] / sum_j exp(s_j), s_j = rounded(scale * q[t, h]) . k[j, h // group]
    c_j = round(127 w_j / w), w_j = exp(s_j) scale of v_j, b_j = w / 127, the numbers of v alone, w the largest of what
    is seen of a block of 32 positions, or of 128 where every query sees everything.

    Shapes: q (tokens, heads, dim); k, v (length, kv_heads); token t is at position length - tokens + t. Slack is what
    follows from a relative error of ``precision`` in each term of a score, in exp, and in each product.
    """
    group, together = len(q[0]) // len(k[0]), BLOCK if causal or window is not None else SPAN * BLOCK
    factor = 1 / math.sqrt(len(q[0][0])) if scale is None else scale
    out: list[list[Output]] = []
    for t, heads in enumerate(q):
        at = len(k) - len(q) + t
        seen = [j for j in range(len(k)) if (not causal or j <= at) and (window is None or j > at - window)]
        row: list[Output] = []
        for h, query in enumerate(heads):
            keys, values = [k[j][h // group] for j in seen], [v[j][h // group] for j in seen]
            row.append(
                _attend(
                    _round_query([factor * x for x in query]), keys, values, [j // together for j in seen], precision
                )
            )
        out.append(row)
    return out


def _round_query(q: Sequence[float]) -> list[Rounded]:
    """Groups of 32 numbers, zeros behind the last; scales are powers of two."""
    out: list[Rounded] = []
    for at in range(0, len(q), GROUP):
        group, exponent = [*q[at : at + GROUP], *[0.0] * (at + GROUP - len(q))], LEAST
        while max(abs(x) for x in group) >= math.ldexp(127.5, exponent):
            exponent += 1
        out.append((math.ldexp(1.0, exponent), [round(math.ldexp(x, -exponent)) for x in group]))
    return out


def _attend(
    query: list[Rounded], keys: Sequence[Sequence[Rounded]], values: list[Rounded], blocks: list[int], precision: float
) -> Output:
    terms = [
        [x * y * sum(map(int.__mul__, xs, ys)) for (x, xs), (y, ys) in zip(query, key, strict=True)] for key in keys
    ]
    scores = [math.fsum(row) for row in terms]
    doubts = [precision * (1 + math.fsum(map(abs, row))) for row in terms]
    top, doubt = max(scores), max(doubts)
    total = math.fsum(math.exp(s - top) for s in scores)
    numbers, slack = [0.0] * len(values[0][1]), [0.0] * len(values[0][1])
    for block in sorted({*blocks}):
        inside = [i for i, own in enumerate(blocks) if own == block]
        largest = max(scores[i] for i in inside)
        weights = {i: math.exp(scores[i] - largest) * values[i][0] for i in inside}
        step = max(weights.values())
        if step <= SMALLEST:
            continue
        unit = math.exp(largest - top) * step / LARGEST / total
        for i in inside:
            chance = LARGEST * weights[i] / step
            unsure = chance * math.expm1(4 * doubt)
            few, many = round(max(0.0, chance - unsure)), round(chance + unsure)
            off = unit * (many - few + many * math.expm1(4 * doubt))
            weight = unit * round(chance)
            for d, number in enumerate(values[i][1]):
                numbers[d] += weight * number
                slack[d] += off * abs(number)
    return Output(numbers, slack)
