"""Other processes that compute all the time, as a program's neighbours do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

# It ends by itself where the one that started it was killed and could not end it.
_COMPUTE = "import os, sys\nprint(flush=True)\nwhile os.getppid() == int(sys.argv[1]): sum(range(100000))"


@contextmanager
def busy(processes: int) -> Generator[list[int]]:
    """Keep that many processes computing, one core each, while the context is open; yield their ids."""
    running: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-I", "-S", "-c", _COMPUTE, str(os.getpid())]
    try:
        for _ in range(processes):
            running.append(  # noqa: PERF401  those that started end where a later one cannot start
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
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
