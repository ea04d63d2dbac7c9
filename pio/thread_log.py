"""Logs of threads that others wait for: a log handler that raises ends none of them."""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from typing import Any


class ThreadLog(logging.LoggerAdapter[logging.Logger]):
    """Writes to a logger; what a handler or a filter raises is shown on standard error and goes no further."""

    def __init__(self, name: str) -> None:
        """Write to the logger of a name."""
        super().__init__(logging.getLogger(name), {})

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """Write one message; the line that it names is the caller's."""
        try:
            super().log(level, msg, *args, **{**kwargs, "stacklevel": kwargs.get("stacklevel", 1) + 1})
        except Exception:  # a program's own handlers may raise anything
            if logging.raiseExceptions:  # what `logging` does where a handler finds its own error
                with suppress(AttributeError, OSError, ValueError):  # no standard error, or a closed one
                    traceback.print_exc(file=sys.stderr)
