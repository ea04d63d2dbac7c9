"""Penalties, biases and bans written naively, in float64: what the kernels are compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def penalize(
    logits: Sequence[float],
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    repetition: float = 1.0,
    presence: float = 0.0,
    frequency: float = 0.0,
    bias: Mapping[int, float] | None = None,
    banned: Iterable[int] = (),
) -> list[float]:
    """Return the logits after penalties, biases and bans."""
    out = list(logits)
    for token in set(prompt) | set(answer):
        out[token] = out[token] / repetition if out[token] > 0 else out[token] * repetition
    for token in set(answer):
        out[token] -= presence + frequency * answer.count(token)
    for token, value in (bias or {}).items():
        out[token] += value
    for token in banned:
        out[token] = -math.inf
    return out


def banned(
    prompt: Sequence[int],
    answer: Sequence[int],
    vocab_size: int,
    *,
    always: Sequence[int] = (),
    first: Sequence[int] = (),
    early: Sequence[int] = (),
    early_tokens: int = 0,
    sequences: Sequence[Sequence[int]] = (),
    ngram: int = 0,
) -> set[int]:
    """Return the tokens that must not come next, each tried by itself."""
    found: set[int] = set()
    for token in range(vocab_size):
        text = [*prompt, *answer, token]
        runs = [text[i : i + ngram] for i in range(len(text) - ngram + 1)]
        if (
            token in always
            or (token in first and not answer)
            or (token in early and len(answer) < early_tokens)
            or any(text[len(text) - len(run) :] == list(run) for run in sequences if len(run) <= len(text))
            or (ngram and text[len(text) - ngram :] in runs[:-1])
        ):
            found.add(token)
    return found
