"""Signals that tests send to their own process, on every system."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from typing import Final

USUAL: Final = getattr(signal, "SIGUSR1", signal.SIGTERM)  # nobody else sends it


def send(number: int) -> None:
    """Send this process a signal from any thread, as another process would; Windows can only raise it."""
    if os.name == "posix":
        os.kill(os.getpid(), number)
    else:
        signal.raise_signal(number)


def send_to_main(number: int) -> None:
    """Send a signal to this process's main thread, from another: a wait in it ends where the system ends waits."""
    if os.name == "posix":
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


# For programs that tests start.
CODE: Final = f'import os, signal\nUSUAL = getattr(signal, "SIGUSR1", signal.SIGTERM)\n{inspect.getsource(send)}\n'
