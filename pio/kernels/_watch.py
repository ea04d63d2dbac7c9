"""Who hears of kernels that are compiled and loaded."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple


class Watcher(NamedTuple):
    """What to call, each with a kernel's name, ``left`` with a number."""

    started: Callable[[str], None]
    finished: Callable[[str], None]
    loaded: Callable[[str], None]
    left: Callable[[int], None]


_watchers: list[Watcher] = []


@contextmanager
def watch_compilation(
    started: Callable[[str], None],
    finished: Callable[[str], None],
    loaded: Callable[[str], None],
    left: Callable[[int], None] = lambda _: None,
) -> Generator[None, None, None]:
    """Call back, in the thread that compiles, with the names of kernels compiled or loaded from the folder.

    ``left`` is called with how many kernels compiler processes have still to begin.
    """
    watcher = Watcher(started, finished, loaded, left)
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers[:] = [other for other in _watchers if other is not watcher]


def say_started(name: str) -> None:
    """A kernel begins to be compiled, here or by another process for this one."""
    for watcher in tuple(_watchers):
        watcher.started(name)


def say_finished(name: str) -> None:
    """It is compiled, or failed."""
    for watcher in tuple(_watchers):
        watcher.finished(name)


def say_loaded(name: str) -> None:
    """A kernel that the folder held is ready to run."""
    for watcher in tuple(_watchers):
        watcher.loaded(name)


def say_left(kernels: int) -> None:
    """How many kernels compiler processes have not begun: all of them first, none at the end."""
    for watcher in tuple(_watchers):
        watcher.left(kernels)
