"""What is made of a finished answer that kept to a format: decoded JSON, an instance, or the text that was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pio.errors import RefusedAnswerError
from pio.text import strict_json

if TYPE_CHECKING:
    from pio.structured.response_format import ResponseFormat


class FinishedFormat:
    """Decodes an answer once, when somebody asks: a class's own checks must not hold up the thread of the model."""

    __slots__ = ("_format", "_text", "_values")

    def __init__(self, response_format: ResponseFormat, text: str) -> None:
        """Keep a text that is complete by its format."""
        self._format = response_format
        self._text = text
        self._values: list[Any] = []

    def value(self) -> Any:
        """Return the instance of a pydantic class, the data of other JSON, or else the text.

        Raises:
            RefusedAnswerError: The class's own checks refuse it, which its schema cannot say, or Python cannot hold it.
        """
        if not self._values:
            self._values.append(self._read())
        return self._values[0]

    def _read(self) -> Any:
        if self._format.kind != "json":
            return self._text
        model = self._format.model
        try:
            return strict_json.loads(self._text) if model is None else model.model_validate_json(self._text)
        except Exception as error:  # a validator may raise anything
            who = "Python's json" if model is None else model.__name__
            raise RefusedAnswerError(
                f"the answer has the shape of response_format, and {who} refuses it all the same: {error}; say in the "
                "prompt what the schema cannot, or ask again with another seed"
            ) from error
