"""An engine's worker process, as the runner sees it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class PeerError(Exception):
    """An engine failed; the message says what it said."""


class Worker:
    """A process that lives as long as it is needed, and sleeps between requests.

    Args:
        python: Interpreter of the engine's environment.
        module: What it runs.
        log: File to which everything that it prints is added.
        threads: For libraries that only listen to the environment.
    """

    def __init__(self, python: Path, module: str, log: Path, threads: int) -> None:
        self._name, self._log = module.rpartition(".")[2], log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.perf_counter()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [python, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
            )

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have something done and wait for the reply.

        Raises:
            PeerError: The engine raised an exception, or the process ended.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}, default=str) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"{self._name}: ended with status {self._process.wait()}; see {self._log}")
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(f"{self._name}: {reply['error']}; see {self._log}")
        return reply

    def cpu_seconds(self) -> float:
        """Return the time that all its threads have computed."""
        fields = self._read("stat").rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def pages_read(self) -> int:
        """Return how often it waited for the disk, because pages of a mapped file were not in memory."""
        return int(self._read("stat").rpartition(")")[2].split()[9])

    def peak_memory(self) -> int:
        """Return the most bytes that it ever had in memory, mapped files included."""
        return next(int(line.split()[1]) * 1024 for line in self._read("status").splitlines() if "VmHWM" in line)

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError), self._process:  # which closes the pipes and waits
            self._process.kill()

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self._process.pid}/{name}").read_text("utf-8")
