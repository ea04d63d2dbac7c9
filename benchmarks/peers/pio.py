"""pio, by its public interface."""

from __future__ import annotations

import time
from typing import Any

import pio
from benchmarks.peers.worker import Job, serve


class Engine:
    def convert(self, job: Job) -> None:
        """Nothing to do: the folder runs as it is."""

    def load(self, job: Job) -> dict[str, Any]:
        quantize = {} if job.variant == "bf16" else {"quantize": job.variant}
        self.model = pio.load(
            job.source,
            threads=job.threads,
            context_length=max(job.context, job.shared_context),
            cache_tokens=max(job.context, job.sequences * job.shared_context),
            max_batch_sequences=job.sequences,
            progress=False,
            **quantize,
        )
        return {"version": pio.__version__, "weights": self.model.loaded.memory["weights"]}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        began = time.perf_counter()
        options = {"max_new_tokens": new_tokens, "temperature": 0.0, "ignore_eos": True}
        streams = [self.model.submit(prompt, **options).events() for prompt in prompts]
        seconds: list[float] = []
        for _ in range(new_tokens):
            for stream in streams:
                next(stream)
            seconds.append(time.perf_counter() - began)
        return seconds


if __name__ == "__main__":
    serve(Engine())
