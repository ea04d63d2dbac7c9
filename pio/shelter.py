"""Work that the main thread only waits for: imports, loads and compilations, never left half done, and long calls.

A signal handler raises its exception in the main thread, at whatever point that is: Ctrl-C, a time limit by an alarm,
an end that a service manager asks for. Half an import cannot be mended: a process makes an extension module only once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Final, TypeVar

from pio.threads import start

T = TypeVar("T")

LOOK: Final = 0.2  # seconds until a wait lets signal handlers run where the system does not end it for them: on Windows


def sheltered(work: Callable[[], T], *, complete: bool = True) -> T:
    """Do work in a thread of its own and wait for it, so that no signal handler's exception lands in it.

    Such an exception ends the waiting at once; the work goes on and is complete before the process ends. Threads other
    than the main one get no such exceptions, and do the work themselves.

    Args:
        work: Needs nothing that the calling thread holds: neither a lock, nor a module that it is just importing.
        complete: Whether the process waits for it at its end, where nobody waits for it any more.

    Returns:
        What the work returns; what it raises is raised.
    """
    import threading  # here: importing pio, which imports this file, is to cost nothing

    if threading.current_thread() is not threading.main_thread():
        return work()
    from contextvars import copy_context

    context, results, errors = copy_context(), list[T](), list[BaseException]()

    waiting, done = True, threading.Lock()
    done.acquire()

    def run() -> None:
        try:
            results.append(context.run(work))
        except BaseException as error:
            if waiting:
                errors.append(error)
        finally:
            done.release()

    thread = threading.Thread(target=run, name="pio-work", daemon=not complete)
    try:
        start(thread)
        # not join: interrupted, it takes the thread for one that has ended, or never ends itself later
        while not done.acquire(timeout=LOOK):
            pass
    except (RuntimeError, MemoryError) as error:
        if thread.ident is not None or thread in threading.enumerate():
            raise _raised(error) from None  # a signal handler's exception, and the work is under way
        return work()  # the system refuses one more thread
    finally:
        waiting = False  # an error of what nobody waits for any more would keep memory
    if errors:
        raise errors.pop()  # kept nowhere else, or its frames would keep each other alive
    return results.pop()


def _raised(error: Exception) -> BaseException:
    """What a signal handler has raised: in the middle of a wait, Python puts an error about its lock in front of it."""
    hides = type(error) is RuntimeError and str(error) == "release unlocked lock"
    return error.__context__ if hides and error.__context__ is not None else error


def interruptible(work: Callable[[], T]) -> T:
    """Do what takes seconds in a library and releases the GIL, so that Ctrl-C ends the waiting at once.

    Python handles signals in its main thread only, and not before a call into a library returns. So this is as
    ``sheltered``, but nobody misses what an interrupt has left: the process does not wait for it when it ends.
    """
    return sheltered(work, complete=False)


def import_whole(name: str) -> ModuleType:
    """Import a module in one piece, whatever signals come meanwhile; an import statement finds it then.

    Args:
        name: A module of pio, or of a package that knows nothing of pio.
    """
    found = sys.modules.get(name)
    if found is not None and not getattr(found.__spec__, "_initializing", False):
        return found
    return sheltered(lambda: import_module(name))
