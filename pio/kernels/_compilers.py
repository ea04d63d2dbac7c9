"""Compiler processes: kernels that the cache folder lacks are compiled by children of this process, side by side.

Compiling takes seconds, holds the interpreter meanwhile, cannot be interrupted, and leaves a hundred megabytes behind.
A child takes all of that with it as it ends; this process loads what it has written. Where there can be no child,
kernels are compiled here, when they are first called.
"""

# numba comes without type stubs
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple

from numba.core.event import EventStatus

from pio.kernels import _jit
from pio.kernels.parallel import Job

BOOT: Final = (
    "import json, sys; sys.path[:], folder = json.loads(sys.stdin.readline()); "
    "from numba import config; config.CACHE_DIR = folder; "
    "from pio.kernels._compilers import serve; serve()"
)

_log = logging.getLogger("pio.kernels")


class Order(NamedTuple):
    """A kernel by name: all that another process needs to find it.

    Attributes:
        module: Where it is defined.
        name: Its name there.
        dtype: Element type that it is made for; empty where it has none.
    """

    module: str
    name: str
    dtype: str

    @classmethod
    def of(cls, kernel: Any) -> Order:
        """Return the order for a parallel or serial kernel."""
        fn = kernel.kernel if isinstance(kernel, Job) else kernel.py_func
        return cls(fn.__module__, fn.__dict__.get("generic", fn.__name__), fn.__dict__.get("dtype", ""))

    def find(self) -> Any:
        """Return the kernel."""
        found = getattr(import_module(self.module), self.name)
        return found[self.dtype] if self.dtype else found


def compile_missing(kernels: Iterable[Any], processes: int) -> None:
    """Compile those kernels that the cache folder lacks, and wait until it has them.

    Args:
        kernels: Parallel and serial ones, each as often as wanted.
        processes: How many may compile at once.
    """
    folder = _jit.cache_folder()
    if folder is None or _jit.BOUNDSCHECK or not _can_start_children():
        return
    missing = {Order.of(kernel): None for kernel in kernels if not _is_kept(kernel)}
    if not missing or not _jit.is_writable(folder):
        return
    orders = deque(missing)
    _jit.announce_left(len(orders))
    children = [_Child(str(folder.parents[2])) for _ in range(min(processes, len(orders)))]
    try:
        threads = [threading.Thread(target=child.work, args=(orders,), daemon=True) for child in children]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for child in children:
            child.end()
        _jit.announce_left(0)


def _is_kept(kernel: Any) -> bool:
    return _jit.is_kept(kernel.callback() if isinstance(kernel, Job) else kernel)


def _can_start_children() -> bool:
    """Whether the interpreter is a program of its own, and not part of one that would start a second time."""
    name = os.path.basename(sys.executable or "")
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


class _Child:
    """A process that compiles one kernel after another; it ends with this one, or when told."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ending = False
        # -P: nothing is imported from whatever folder is the current one
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def work(self, orders: deque[Order]) -> None:
        """Have orders done until none is left."""
        try:
            self._say((sys.path, self._folder))
            with suppress(IndexError):  # until no order is left
                while True:
                    order = orders.popleft()
                    _jit.announce_left(len(orders))
                    self._do(order)
        except (OSError, ValueError) as error:  # its end of a pipe is closed, or this one
            if not self._ending:
                _log.warning("a compiler process ended early; its kernels are compiled in this process: %s", error)

    def _say(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _do(self, order: Order) -> None:
        """Have a kernel compiled, and tell those who watch."""
        self._say(order)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, name = line.rstrip("\n").partition(" ")
            if word == "done":
                return
            if word == "failed":
                _log.warning("a compiler process could not compile %s; it is compiled here: %s", order.name, name)
                return
            _jit.announce(_jit.ELSEWHERE, EventStatus.START if word == "begin" else EventStatus.END, name)
        raise OSError(f"exit status {self._process.wait()}")

    def end(self) -> None:
        """End the process, whatever it does."""
        self._ending = True
        self._process.kill()
        self._process.communicate()


def serve() -> None:
    """Be a compiler process: read orders, compile, say so, until the input ends."""
    say = sys.stdout

    def tell(word: str, name: str = "") -> None:
        say.write(f"{word} {name}\n")
        say.flush()

    with _jit.watch_compilation(lambda name: tell("begin", name), lambda name: tell("end", name), lambda _: None):
        for line in sys.stdin:
            order = Order(*json.loads(line))
            try:
                kernel = order.find()
                if isinstance(kernel, Job):
                    kernel.callback().compile()
                else:
                    kernel.compile(_jit.signature(kernel.py_func))
                tell("done")
            except Exception as error:  # of whatever kind: the other process meets it again, where it can be seen
                tell("failed", f"{type(error).__name__}: {error}".replace("\n", " "))
