"""Compiler processes: kernels that the cache folder lacks are compiled by children of this process, side by side.

Compiling takes seconds, holds the interpreter meanwhile, cannot be interrupted, and leaves a hundred megabytes behind.
A child takes all of that with it as it ends; this process loads what it has written. Where there can be no child,
kernels are compiled here, when they are first called.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from pio.kernels import _image, _settings, _watch
from pio.kernels._image import CudaName, Name
from pio.kernels._source import find
from pio.kernels.jobs import Wanted
from pio.shelter import import_whole
from pio.system import HERE
from pio.threads import start

# Names of programs that take Python's options; anything else may be a program that has Python inside.
INTERPRETER: Final = re.compile(r"(python|pypy)w?[\d.]*[td]*(-dbg|-intel64)?(\.exe)?", re.IGNORECASE)
READY: Final = "ready"
BEGIN_LIMIT: Final = 30  # seconds until the process reads its orders
KERNEL_LIMIT: Final = 300  # seconds for a kernel
LOOK: Final = 0.1  # seconds from one check to the next whether the kernels are still wanted
BOOT: Final = (
    "import json, sys; sys.path[:], folder = json.loads(sys.stdin.readline()); "
    "sys.stdout.reconfigure(encoding='utf-8', errors='backslashreplace'); "
    f"print({READY!r}, flush=True); "
    "import os; os.environ['NUMBA_CACHE_DIR'] = folder; "
    "from pio.kernels._compilers import serve; serve()"
)

_log = logging.getLogger("pio.kernels")


class Kernel(Protocol):
    """A parallel or serial kernel."""

    @property
    def source(self) -> Wanted:
        """Its machine code."""
        ...


def compile_missing(kernels: Iterable[Kernel], processes: int, check: Callable[[], object] = lambda: None) -> None:
    """Compile those kernels that the cache folder lacks, and wait until it has them.

    Args:
        kernels: Parallel and serial ones, each as often as wanted.
        processes: How many may compile at once.
        check: Called while they do; what it raises ends them.
    """
    folder, program = _image.cache_folder(), _interpreter()
    if folder is None or _settings.PLAIN or program is None:
        return
    missing = {kernel.source.name: None for kernel in kernels if not kernel.source.is_kept()}
    if not missing or not _image.is_writable(folder):
        return
    orders, children = deque(missing), list[_Child]()
    _watch.say_left(len(orders))
    try:
        threads = _start(orders, min(processes, len(orders)), program, folder, children)
        for thread in threads:
            while thread.is_alive():
                thread.join(LOOK)
                for child in children:
                    child.end_overdue()
                check()
    finally:
        for child in children:
            child.end()
        _watch.say_left(0)


def _start(
    orders: deque[Name | CudaName], processes: int, program: str, folder: Path, children: list[_Child]
) -> list[threading.Thread]:
    """Start processes, fewer where the system refuses some, and return the threads that give them orders."""
    threads: list[threading.Thread] = []
    try:
        for _ in range(processes):
            child = _Child(program, str(folder.parents[2]))
            children.append(child)
            thread = threading.Thread(target=child.work, args=(orders,), daemon=True)
            start(thread)
            threads.append(thread)
    except (OSError, RuntimeError, MemoryError) as error:  # one more is refused, or there is no such program
        left = "the others go on" if threads else "kernels are compiled in this process"
        _log.warning("a compiler process cannot be started; %s: %s", left, error)
    return threads


def _interpreter() -> str | None:
    """The program to start, or None where that might be the host program for a second time, and not Python."""
    program: Any = sys.executable  # whatever an embedding program has set it to
    if getattr(sys, "frozen", False) or not isinstance(program, str):
        return None
    return program if INTERPRETER.fullmatch(os.path.basename(program)) else None


class _Child:
    """A process that compiles one kernel after another; it ends with this one, or when told."""

    def __init__(self, program: str, folder: str) -> None:
        self._folder = folder
        self._ending = False
        self._silent = ""  # what is said of it where it was ended for having said nothing
        self._limit, self._deadline = 0.0, math.inf
        # as this process runs, for the name of a kernel's file tells its byte code, which -OO changes
        optimized = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
        self._process = subprocess.Popen(
            # -P: nothing is imported from whatever folder is the current one
            [program, "-P", "-W", "ignore", *optimized, "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **HERE.child_options,
        )

    def work(self, orders: deque[Name | CudaName]) -> None:
        """Have orders done until none is left."""
        try:
            self._say((list(filter(_is_text, sys.path)), self._folder))
            if self._line(BEGIN_LIMIT) != READY:
                raise OSError("it is not Python")
            with suppress(IndexError):  # until no order is left
                while True:
                    order = orders.popleft()
                    _watch.say_left(len(orders))
                    self._do(order)
        except (OSError, ValueError) as error:  # its end of a pipe is closed, or this one
            if not self._ending:
                _log.warning("a compiler process ended early; its kernels are compiled in this process: %s", error)

    def _say(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _line(self, seconds: float) -> str:
        """What the process says next, without the end of the line."""
        assert self._process.stdout is not None
        self._limit, self._deadline = seconds, time.monotonic() + seconds
        line = self._process.stdout.readline()
        self._deadline = math.inf
        if not line.endswith(b"\n"):
            self._process.kill()  # it has closed its output, so it is ending or as good as that
            status = self._process.wait()
            raise OSError(self._silent or f"exit status {status}")
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def end_overdue(self) -> None:
        """End the process where it has said nothing for as long as it was given."""
        if time.monotonic() > self._deadline:
            self._silent = f"it said nothing for {self._limit} s"
            self._process.kill()

    def _do(self, order: Name | CudaName) -> None:
        """Have a kernel compiled, and tell those who watch."""
        self._say(order)
        while True:
            word, _, name = self._line(KERNEL_LIMIT).partition(" ")
            if word == "done":
                return
            if word == "failed":
                _log.warning("a compiler process could not compile %s; it is compiled here: %s", order.name, name)
                return
            (_watch.say_started if word == "begin" else _watch.say_finished)(name)

    def end(self) -> None:
        """End the process, whatever it does."""
        self._ending = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was to be written cannot be any more
                    pipe.close()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def serve() -> None:
    """Be a compiler process: read orders, compile, say so, until the input ends."""
    say = sys.stdout.buffer

    def tell(word: str, name: str = "") -> None:
        say.write(f"{word} {name}\n".encode("utf-8", "backslashreplace"))  # whatever encoding this process has
        say.flush()

    with _watch.watch_compilation(lambda name: tell("begin", name), lambda name: tell("end", name), lambda _: None):
        for line in sys.stdin:
            order: list[str] = json.loads(line)
            try:
                _compile(order)
                tell("done")
            except Exception as error:  # of whatever kind: the other process meets it again, where it can be seen
                tell("failed", f"{type(error).__name__}: {error}".replace("\n", " "))


def _compile(order: list[str]) -> None:
    """Compile the kernel of a name and keep it; that of a GPU has an architecture behind it."""
    name, architecture = Name(*order[:3]), order[3:]
    if architecture:
        import_whole("pio.kernels.cuda._kept").find(name, *architecture)
    else:
        find(name).source.compile()
