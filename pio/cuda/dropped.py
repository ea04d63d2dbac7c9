"""What was dropped and is to be given back: memory, graphs, streams of copies, in the order in which it was dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Dropped:
    """It waits here for the next call of the driver: finalisers drop, in any thread and at any moment.

    That may be while another call is under way, so they ask the driver for nothing. One thread gives back at a time,
    and others that come wait for it: what is next may be memory to which a copy is under way, for whose end the one
    before it waits.
    """

    def __init__(self) -> None:
        """Have nothing to give back."""
        self._releases: deque[Callable[[], object]] = deque()
        self._lock = threading.RLock()
        self._busy = False

    def __bool__(self) -> bool:
        """Whether anything is not given back yet."""
        return bool(self._releases)

    def add(self, release: Callable[[], object]) -> None:
        """Have this called; from any thread at any moment."""
        self._releases.append(release)

    def give_back(self) -> None:
        """Give back all that was dropped by now; errors are those of the first that fails, and the rest stays."""
        if not self._releases:
            return
        with self._lock:
            if self._busy:  # what is given back has asked for something, in this thread
                return
            try:
                self._busy = True
                while self._releases:
                    try:
                        self._releases[0]()
                    finally:
                        self._releases.popleft()  # behind it: until then others find that they have to wait
            finally:
                self._busy = False
