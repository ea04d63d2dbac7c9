"""Every error that pio raises on purpose; a message names what was found, what was expected and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pio.engine.generation import Generation


class PioError(Exception):
    """Base of every error that pio raises on purpose."""


class CheckpointError(PioError):
    """A model folder is missing, damaged, contradictory or unsafe to read."""


class ConfigError(PioError):
    """A setting, sampling field or argument has a value that cannot be used."""


class UnsupportedModelError(PioError):
    """No installed plugin runs this architecture, or a feature of it is not implemented."""


class OutOfMemoryError(PioError):
    """A request needs more memory than the limit or the machine allows."""


class CapacityError(PioError):
    """A prompt or a request does not fit into the context or the cache."""


class CacheError(PioError):
    """A block or a slot of a cache was given back by somebody who does not hold it: a fault of pio, not of a caller."""


class CancelledError(PioError):
    """The request was cancelled before it finished."""


class DeadlineError(PioError):
    """A request cannot be answered in the time that it was given, however soon it runs."""


class UnfinishedAnswerError(PioError):
    """A conversation's answer ended before it began: inside the model's reasoning, or before its first token.

    Attributes:
        generation: What there is of it: the reasoning, its tokens and why it ended.
    """

    def __init__(self, message: str, generation: Generation) -> None:
        super().__init__(message)
        self.generation = generation

    def __reduce__(self) -> tuple[type[UnfinishedAnswerError], tuple[str, Generation]]:
        return type(self), (str(self), self.generation)


class RefusedAnswerError(PioError):
    """An answer has the shape that ``response_format`` asked for, and its class's own checks refuse it."""


class MediaError(PioError):
    """A picture or a video cannot be read or used."""


class NumericalError(PioError):
    """A model computed NaN or infinity where numbers were expected."""


class RecordingError(PioError):
    """A step that is recorded does what could not run again: it makes memory, or reads or writes numbers in Python."""


class DeviceError(PioError):
    """A device, its driver or its threading layer cannot do what was asked."""


class TensorError(PioError, ValueError):
    """Shapes, strides, dtypes or devices of tensors do not fit the operation."""
