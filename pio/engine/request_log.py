"""What is logged of requests: numbers and seconds, at the level DEBUG; never a prompt, an answer or an error's text.

All of it is written by the thread that runs the model, for requests are also made and cancelled in signal handlers and
finalisers, which must wait for no lock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from pio.errors import CancelledError, ConfigError, DeadlineError
from pio.thread_log import ThreadLog

if TYPE_CHECKING:
    from pio.engine.generation import Generation
    from pio.engine.sequence import Consumer
    from pio.engine.sequence import Sequence as TokenSequence

_log = ThreadLog("pio.engine")
_EXPECTED = CancelledError, ConfigError, DeadlineError  # the caller's doing: he hears of it, and nobody else need


def arrived(sequences: Sequence[TokenSequence]) -> None:
    """Say that a request has come to the model."""
    if sequences and _log.isEnabledFor(logging.DEBUG):
        first, count = sequences[0], len(sequences)
        _log.debug(
            "request %d: %d prompt tokens, %s, priority %d, queued for %.3f s",
            first.consumer.request.number,
            first.prompt_length,
            "1 answer" if count == 1 else f"{count} answers",
            first.priority,
            _since(first.consumer),
        )


def began(consumer: Consumer) -> None:
    """Say that an answer has its first token."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s: first token after %.3f s", _name(consumer), _since(consumer))


def finished(consumer: Consumer, result: Generation) -> None:
    """Say that an answer is complete."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug(
            "%s: finished (%s): %d tokens behind %d, %d of them cached, in %.3f s, %.1f tokens/s",
            _name(consumer),
            result.finish_reason,
            result.usage.completion_tokens,
            result.usage.prompt_tokens,
            result.usage.cached_tokens,
            _since(consumer),
            result.timings.tokens_per_second,
        )


def scored(consumer: Consumer, tokens: int) -> None:
    """Say that the logits of a prompt are complete."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s: logits of %d tokens in %.3f s", _name(consumer), tokens, _since(consumer))


def gave_way(sequence: TokenSequence) -> None:
    """Say that an answer lost its room in the cache to others, and starts again later."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug(
            "%s: gave way to others behind %d tokens, %d of them generated",
            _name(sequence.consumer),
            len(sequence.tokens),
            len(sequence.tokens) - sequence.prompt_length,
        )


def dropped(sequence: TokenSequence) -> None:
    """Say that an answer ends without a result, because its request was cancelled or has failed."""
    if _log.isEnabledFor(logging.DEBUG):
        error = sequence.consumer.request.error
        _log.debug(
            "%s: %s behind %d generated tokens, after %.3f s",
            _name(sequence.consumer),
            "cancelled" if error is None else f"ended by {type(error).__name__}",
            len(sequence.tokens) - sequence.prompt_length,
            _since(sequence.consumer),
        )


def failed(error: BaseException, sequences: Iterable[TokenSequence]) -> None:
    """Warn of an error that is no caller's doing; its text, which may quote an answer, is left to the callers."""
    if not isinstance(error, _EXPECTED) and _log.isEnabledFor(logging.WARNING):
        numbers = sorted({sequence.consumer.request.number for sequence in sequences})
        names = ", ".join(map(str, numbers[:16])) + (" and others" if len(numbers) > 16 else "")
        _log.warning(
            "%s ends %s",
            type(error.__cause__ or error).__name__,
            f"request {names}" if names else "the thread of a model",
        )


def _name(consumer: Consumer) -> str:
    """The request, and which of its answers where there are several."""
    request, index = consumer.request, consumer.index
    return f"request {request.number}" + (f", answer {index + 1} of {request.answers}" if request.answers > 1 else "")


def _since(consumer: Consumer) -> float:
    """Seconds since the request."""
    return perf_counter() - consumer.request.queued
