"""Other processes, on every system: they are looked at, waited for, and sent signals."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pio as package

FOLDER = Path(package.__file__).parent.parent
# Where no process can send another a signal, a thread of that one raises those that it is told to.
_RAISING = """
import runpy, signal, socket, sys, threading

def listen(connection):
    while number := connection.recv(1):
        signal.raise_signal(number[0])

connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
threading.Thread(target=listen, args=(connection,), daemon=True).start()
kind, what = sys.argv[2:4]
sys.argv[:] = [what if kind == "-m" else kind, *sys.argv[4:]]
if kind == "-m":
    runpy.run_module(what, run_name="__main__", alter_sys=True)
else:
    exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
"""


def environment(*folders: Path) -> dict[str, str]:
    """Return an environment for a process that imports from these folders too, from the tests and from pio."""
    found = [*map(str, folders), str(FOLDER / "tests"), str(FOLDER), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))}


class Program:
    """A program of Python that signals can be sent to.

    Attributes:
        process: It, with pipes for all three streams unless others are given.
    """

    def __init__(self, what: str, *arguments: object, kind: str = "-m", **options: Any) -> None:
        """Start it.

        Args:
            what: A module such as ``pio``, or code where ``kind`` is ``-c``.
            arguments: Of its command line.
            kind: Python's own option.
            options: As ``subprocess.Popen`` has them.
        """
        command = [kind, what, *map(str, arguments)]
        usual = {"cwd": FOLDER, **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)}
        self._connection: socket.socket | None = None
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(60)
            if os.name != "posix":
                command = ["-c", _RAISING, str(server.getsockname()[1]), *command]
            self.process = subprocess.Popen([sys.executable, *command], **{**usual, **options})
            if os.name != "posix":
                self._connection = server.accept()[0]

    def send(self, number: int) -> None:
        """Send a signal."""
        if self._connection is None:
            self.process.send_signal(number)
        else:
            self._connection.sendall(bytes([number]))

    def first_byte(self) -> bytes:
        """Wait until it writes something, and return the first byte of it."""
        assert self.process.stdout is not None
        return os.read(self.process.stdout.fileno(), 1)

    def end(self, text: bytes | None = None) -> tuple[int, bytes]:
        """Give it its last input, wait for its end; return its exit code and what it wrote to standard error."""
        with self:
            _, errors = self.process.communicate(text, timeout=120)
        return self.process.returncode, errors

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        """Send it no more signals."""
        if self._connection is not None:
            self._connection.close()


def wait_for_end(number: int, seconds: float) -> None:
    """Wait until a process has ended that this one has not started.

    Raises:
        TimeoutError: It has not.
    """
    if sys.platform == "linux":
        try:
            handle = os.pidfd_open(number)
        except ProcessLookupError:
            return
        try:
            ended = bool(select.select([handle], [], [], seconds)[0])
        finally:
            os.close(handle)
    elif sys.platform == "win32":
        system = ctypes.WinDLL("kernel32")
        system.OpenProcess.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(system.OpenProcess(0x100000, False, number))  # to wait for it, and no more
        ended = handle.value is None or system.WaitForSingleObject(handle, int(1000 * seconds)) == 0
        system.CloseHandle(handle)
    else:
        import psutil

        ended = not psutil.pid_exists(number) or psutil.wait_procs([psutil.Process(number)], seconds)[1] == []
    if not ended:
        raise TimeoutError(f"process {number} still runs after {seconds} s")


def interrupted(program: Program) -> tuple[int, bytes]:
    """Send Ctrl-C's signal as soon as a program has written something; return what ``end`` does."""
    assert program.first_byte()
    program.send(signal.SIGINT)
    return program.end()
