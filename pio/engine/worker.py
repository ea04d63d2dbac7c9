"""The one thread that runs a model: its loop, its birth and its end."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Final

from pio.engine.media_encoder import MediaEncoder
from pio.engine.runner import Runner
from pio.engine.scheduler import Scheduler
from pio.engine.sequence import Sequence
from pio.engine.stats import Stats
from pio.engine.steps import Steps, told
from pio.engine.waiters import Waiters
from pio.errors import CancelledError, PioError
from pio.system import HERE
from pio.threads import green_threads, start

STORE_WAIT: Final = 1.0  # seconds that what is being written to disk may take at the end


class Worker:
    """Takes sequences from an inbox and steps until all are done; sleeps while there are none.

    Its thread starts with the first sequences. Everything but the loop may be called from any thread, from signal
    handlers and from finalisers: all of it is done with operations that are atomic, and no lock is held or waited for.
    """

    def __init__(self, scheduler: Scheduler, runner: Runner, encoder: MediaEncoder | None = None) -> None:
        self._steps = Steps(scheduler, runner, encoder)
        self._stored = scheduler.stored
        # a SimpleQueue, for its `put` is the one that may interrupt any other call of the queue
        self._inbox: queue.SimpleQueue[list[Sequence] | None] = queue.SimpleQueue()
        if self._stored is not None:
            self._stored.store.wake = partial(self._inbox.put, [])
        self._dropped: deque[list[Sequence]] = deque()  # of requests that died, to be removed before the next step
        self._at_end: deque[Callable[[], object]] = deque()
        self._process = os.getpid()
        self._starting: threading.Thread | None = None
        self._role: dict[str, threading.Thread] = {}  # the thread that runs the loop; to claim it is atomic
        self._thread: threading.Thread | None = None  # the one that ran it last
        self._closed = False
        self._ended = Waiters()

    # Called by others

    @property
    def alive(self) -> bool:
        """Whether a thread of this process runs the loop, or is about to."""
        if os.getpid() != self._process:
            return False
        running, starting = self._role.get("worker"), self._starting
        return (running is not None and _lives(running)) or (starting is not None and _lives(starting))

    def stats(self) -> Stats:
        """Count what there is now."""
        return self._steps.stats()

    def put(self, sequences: list[Sequence]) -> None:
        """Queue sequences, and have a thread for them.

        Raises:
            PioError: The worker was closed, belongs to another process, or the system refuses a thread; nothing is
                queued then.
        """
        if os.getpid() != self._process:
            raise PioError("this model was loaded before the process forked; load it again in the child")
        if self._closed:
            raise PioError("the model is closed; load it again before the next request")
        self._start()
        self._inbox.put(sequences)
        if not self.alive:  # it has ended meanwhile, and found the inbox empty
            if self._closed:
                self._refuse_inbox(_closed())
            else:
                self._start()

    def drop(self, sequences: list[Sequence]) -> None:
        """Forget sequences of a request that is over; what they hold of the cache is free at the next step."""
        if self.alive:  # else there are none, and nobody would take this away
            self._dropped.append(sequences)

    def stop(self) -> None:
        """End the loop after its step; what is not finished gets a CancelledError."""
        self._closed = True
        self._inbox.put(None)

    def join(self, seconds: float) -> None:
        """Wait until a stopped thread has ended, at most so long; not at all in that thread itself."""
        thread = self._thread
        if thread is not None and thread.ident != threading.get_ident() and os.getpid() == self._process:
            deadline = time.monotonic() + seconds
            if self._ended.wait(lambda: not self._role, lambda: None, deadline):
                thread.join(max(0.0, deadline - time.monotonic()))  # it holds no lock and no memory of the model then

    def at_end(self, call: Callable[[], object]) -> None:
        """Call something once a stopped worker can do no step any more: now, or when its thread ends."""
        self._at_end.append(call)
        if not self.alive:
            self._finish()

    def check(self) -> None:
        """Raise where nobody will wake a thread that waits for a request.

        Raises:
            PioError: The thread is gone, belongs to another process, or is the one that asks.
        """
        if os.getpid() != self._process:
            raise PioError("this request was made before the process forked, and is answered in the parent only")
        if self._role and self._thread is not None and self._thread.ident == threading.get_ident():
            raise PioError("the thread that runs a model cannot wait for it; wait in another thread")
        if sys.is_finalizing():
            raise CancelledError("the interpreter is leaving, so the request will not be finished")
        if not self.alive:
            raise _closed() if self._closed else CancelledError("the thread that ran the request is gone")

    def _start(self) -> None:
        if self.alive:
            return
        # Several threads may come here at once, or a handler in between: of the threads that they start one takes the
        # role, and the others end at once.
        self._starting = thread = threading.Thread(target=self.run, name="pio-batch", daemon=True)
        try:
            start(thread)
        except RuntimeError as error:
            if "thread" not in str(error):  # a signal handler's own
                raise
            self._starting = None
            raise PioError(
                f"the system refuses a thread for the model ({error}); end other threads or processes, or "
                f"{HERE.thread_remedy}, and send the request again"
            ) from error

    # The loop

    def run(self) -> None:
        """Serve until told to stop; then whatever is left gets a CancelledError."""
        me = threading.current_thread()
        claimed = self._role.setdefault("worker", me) is me
        if self._starting is me:
            self._starting = None
        if not claimed:
            return
        self._thread = me
        error: BaseException = _closed()
        try:
            with nullcontext() if self._stored is None else self._stored.watch():
                self._loop()
        except BaseException as found:
            error = told(found)
            if not (isinstance(found, Exception) and self._steps.everything):  # else there is somebody to tell
                raise
        finally:
            self._leave(error)

    def _loop(self) -> None:
        # coroutines run only while this one gives way
        give_way = time.sleep if green_threads() else None
        while self._receive():
            self._remove_dropped()
            self._steps.expire()
            if self._steps.busy:
                self._steps.step()
                self._remove_dropped()  # now, for it may sleep next, and what is over must not live on
                if give_way is not None:
                    give_way(0)
            if self._stored is not None:
                self._stored.write(idle=not self._steps.busy)

    def _receive(self) -> bool:
        """Queue what has come in, waiting for it only where there is nothing else to do; False to stop."""
        wait = not self._steps.busy
        while wait or not self._inbox.empty():
            try:
                arrived = self._inbox.get(timeout=None if self._stored is None else self._stored.rest())
            except queue.Empty:  # something is to be written
                return True
            if arrived is None:
                return False
            self._steps.arrive(arrived)
            wait = False
        return True

    def _remove_dropped(self) -> None:
        while self._dropped:
            self._steps.drop(self._dropped.popleft())

    def _leave(self, error: BaseException) -> None:
        """End: nobody may be left waiting, whatever state the loop was left in."""
        try:
            self._steps.end(error, closed=self._closed)
        finally:  # also where that fails: who keeps the role has no successor, and no later request an answer
            self._refuse_inbox(error)
            self._role.clear()
            self._refuse_inbox(error)  # what came in between; who comes later finds no thread
            self._dropped.clear()
            if self._closed:
                self._finish()
            self._ended.wake()

    def _refuse_inbox(self, error: BaseException) -> None:
        while not self._inbox.empty():
            try:
                arrived = self._inbox.get_nowait()
            except queue.Empty:  # another thread was faster
                return
            if arrived is None and self.alive:  # not for this thread but for the one that has the role now
                self._inbox.put(None)
                return
            for sequence in arrived or ():
                sequence.consumer.fail(error)

    def _finish(self) -> None:
        if self._stored is not None:
            self._stored.store.close(STORE_WAIT)  # where no thread came to it
        while self._at_end:
            try:
                call = self._at_end.popleft()
            except IndexError:  # another thread was faster
                return
            call()


def _lives(thread: threading.Thread) -> bool:
    """Whether a thread was started and has not ended; coroutines only say that they were started."""
    return thread.ident is not None and (green_threads() or thread.is_alive())


def _closed() -> CancelledError:
    return CancelledError("the model was closed before the request finished")
