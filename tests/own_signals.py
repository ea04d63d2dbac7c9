"""Signals that tests send to their own process, on every system."""

from __future__ import annotations

import inspect
import os
import signal
from typing import Final

USUAL: Final = getattr(signal, "SIGUSR1", signal.SIGTERM)  # nobody else sends it


def send(number: int) -> None:
    """Send this process a signal from any thread, as another process would; Windows can only raise it."""
    if os.name == "posix":
        os.kill(os.getpid(), number)
    else:
        signal.raise_signal(number)


# For programs that tests start.
CODE: Final = f'import os, signal\nUSUAL = getattr(signal, "SIGUSR1", signal.SIGTERM)\n{inspect.getsource(send)}\n'
