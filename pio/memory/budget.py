"""Budget: a limit on the memory that several owners share."""

from __future__ import annotations

import threading

from pio.errors import ConfigError, OutOfMemoryError
from pio.memory.sizes import format_bytes


class MemoryBudget:
    """A limit on bytes that several owners share; safe to use from any thread.

    Example:
        >>> budget = MemoryBudget(1000)
        >>> budget.reserve(600, "the weights")
        >>> budget.available
        400
    """

    __slots__ = ("_limit", "_lock", "_returned", "_used")

    def __init__(self, limit_bytes: int) -> None:
        """Allow ``limit_bytes`` in total.

        Raises:
            ConfigError: The limit is negative.
        """
        if limit_bytes < 0:
            raise ConfigError(f"a memory limit must not be negative, found {limit_bytes}")
        self._limit = limit_bytes
        self._used = 0
        # What is released waits here for the next who reserves: finalisers release, in any thread and at any moment,
        # and may wait for no lock.
        self._returned: list[int] = []
        self._lock = threading.RLock()  # re-entrant, for a signal handler may reserve while this very thread does

    @property
    def limit(self) -> int:
        """Bytes allowed in total."""
        return self._limit

    @property
    def used(self) -> int:
        """Bytes reserved now."""
        return self._used - sum(self._returned.copy())

    @property
    def available(self) -> int:
        """Bytes that can still be reserved."""
        return self._limit - self.used

    def reserve(self, nbytes: int, what: str) -> None:
        """Take ``nbytes`` for ``what`` out of the budget, or nothing at all.

        Args:
            nbytes: Bytes to take.
            what: What they are for, as a noun phrase; it appears in the error.

        Raises:
            OutOfMemoryError: Fewer bytes are left.
            ConfigError: The size is negative.
        """
        if nbytes < 0:
            raise ConfigError(f"cannot reserve {nbytes} bytes for {what}")
        with self._lock:
            while self._returned:
                returned = self._returned.pop()
                self._used -= returned
            if self._used + nbytes > self._limit:
                raise OutOfMemoryError(
                    f"{what}: {format_bytes(nbytes)} needed, and of the memory limit of {format_bytes(self._limit)} "
                    f"{format_bytes(self._used)} are in use; raise memory_limit or ask for less"
                )
            self._used += nbytes

    def release(self, nbytes: int) -> None:
        """Give ``nbytes`` back.

        Raises:
            ConfigError: Fewer bytes are reserved, or the size is negative.
        """
        if not 0 <= nbytes <= self.used:
            raise ConfigError(f"cannot release {nbytes} bytes of a budget with {self.used} bytes in use")
        self._returned.append(nbytes)

    def __repr__(self) -> str:
        return f"MemoryBudget(used={self.used}, limit={self._limit})"
