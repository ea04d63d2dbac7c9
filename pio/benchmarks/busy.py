"""Other processes that compute all the time, as a program's neighbours do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from pio.system import HERE

# Its input ends with the process that started it, so that it ends too where that one was killed and could not end it.
_COMPUTE = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(flush=True)
while True: sum(range(100000))
"""


@contextmanager
def busy(processes: int) -> Generator[list[int]]:
    """Keep that many processes computing, one core each, while the context is open; yield their ids."""
    running: list[subprocess.Popen[Any]] = []
    command = [sys.executable, "-I", "-S", "-c", _COMPUTE]
    try:
        for _ in range(processes):
            running.append(  # noqa: PERF401  those that started end where a later one cannot start
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    **HERE.child_options,
                )
            )
        for process in running:
            if process.stdout is not None:
                process.stdout.readline()  # it computes from here
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.communicate()
