"""What the machine reads at best, measured by pio's own kernel beside the engines."""

from __future__ import annotations

from typing import Any

import pio
from benchmarks.peers.worker import Job, serve


class Reader:
    def convert(self, job: Job) -> None:
        """Nothing to do."""

    def load(self, job: Job) -> dict[str, Any]:
        from pio.benchmarks.machine import Machine
        from pio.device import Device

        self.machine = Machine(Device("cpu", job.threads))
        return {"version": pio.__version__, "weights": self.machine.buffer_bytes}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        """Return the seconds that the buffer takes."""
        return [self.machine.buffer_bytes / self.machine.bandwidth()]


if __name__ == "__main__":
    serve(Reader())
