"""Loads of one model: one at a time, from any thread, and none left over by an exception that ends the wait for it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from pio.engine.waiters import Waiters
from pio.errors import CancelledError, PioError
from pio.shelter import sheltered

T = TypeVar("T")

LEAVE: Final = 10  # seconds that an interrupted load has to end before its caller goes on


class Load:
    """A load or an update: who does it, and what became of it.

    Attributes:
        thread: Who does it.
        process: Where that thread is.
        left: Whether an exception has ended the wait for it.
        restoring: Whether it has failed, and makes the model that was there before.
        lost: Why that failed too.
    """

    def __init__(self) -> None:
        self.thread, self.process = threading.get_ident(), os.getpid()
        self.left = self.restoring = False
        self.lost = ""


class Loads:
    """Lets one load run at a time, and others wait for it; no lock is held that a signal handler could meet.

    Loads of the main thread run in a thread of their own, where no signal handler's exception can land: neither between
    the claim to be the one load and its release, nor in a finaliser that would lose it.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, Load] = {}  # the load that runs; to claim it is atomic, and no lock can stay held
        self._waiters = Waiters()
        self._wanted: Load | None = None  # the load whose model is to be had; none after give_up()

    def run(self, work: Callable[[Load], T]) -> T:
        """Do a load or update while no other runs, where no signal handler can interrupt it.

        An exception that ends the wait for it ends the load too, at its next look; both are over when it is raised.

        Args:
            work: Calls ``check`` with the load that it is given between any two steps that may take long.

        Raises:
            PioError: This thread is loading the model already, or the interpreter is leaving.
            CancelledError: ``give_up`` was called meanwhile; and what ``work`` raises.
        """
        load = Load()

        def alone() -> T:
            load.thread = threading.get_ident()
            try:
                self._claim(load)
                self.check(load)  # it may have been left before it began
                return work(load)
            finally:
                self._release(load)

        try:
            return sheltered(alone)
        except BaseException as error:
            load.left = True
            if load.thread == threading.get_ident():  # where there is no other thread, the release may be what it met
                self._release(load)
            self._waiters.wait(partial(self._is_over, load), lambda: None, time.monotonic() + LEAVE)
            if load.lost:
                error.add_note(load.lost)
            raise

    def give_up(self) -> None:
        """Have the load that runs end with an error at its next look. Waits for nothing."""
        self._wanted = None

    def wants(self, load: Load) -> bool:
        """Whether what a load makes is to be had, as far as ``give_up`` goes."""
        return self._wanted is load

    def check(self, load: Load) -> None:
        """Raise where nobody waits for what a load makes.

        Raises:
            CancelledError: ``give_up`` was called, or an exception has ended the wait.
        """
        if self._wanted is not load:
            raise CancelledError(
                "the model was cleaned up while it was being loaded; call load_model() to have it again"
            )
        if load.left and not load.restoring:
            raise CancelledError("an exception ended the wait for this load; call load_model() to have the model again")

    def wait(self) -> None:
        """Wait until no load runs.

        Raises:
            PioError: The load is this thread's, so that a wait would have no end, or the interpreter is leaving.
        """
        load = self._under_way.get("load")
        if load is not None and load.process != os.getpid():  # it ran in the parent of this forked child
            self._under_way.clear()
        self._waiters.wait(lambda: not self._under_way, self._check_wait)

    def _check_wait(self) -> None:
        load = self._under_way.get("load")
        if load is not None and load.thread == threading.get_ident():  # a handler or a finaliser came in between
            raise PioError("this thread is loading the model at this moment; use it when that is done")
        if sys.is_finalizing():
            raise PioError("the interpreter is leaving, so the model will not be loaded")

    def _claim(self, load: Load) -> None:
        """Wait until no other load runs, and be the one that does."""
        while self._under_way.setdefault("load", load) is not load:
            self.wait()
        self._wanted = load

    def _release(self, load: Load) -> None:
        if self._under_way.get("load") is load:
            self._under_way.clear()
            self._waiters.wake()

    def _is_over(self, load: Load) -> bool:
        return self._under_way.get("load") is not load
