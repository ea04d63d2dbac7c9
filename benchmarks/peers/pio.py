"""pio, by its public interface."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pio
from benchmarks.peers.checkpoint import SIGHT
from benchmarks.peers.worker import Job, Seen, counted, serve

# variants that run the folder as it is, and what they round inputs of layers to: as other engines do, or not at all
STORED = {"bf16": "bfloat16", "bf16-float32": "float32"}


class Engine:
    def convert(self, job: Job) -> None:
        """Quantize the folder as a user does; uniform puts the head into four bits too."""
        if job.variant in STORED:
            return
        format, _, policy = job.variant.partition("-")
        command = [sys.executable, "-m", "pio", "quantize", job.source, job.converted, "--format", format]
        subprocess.run([*command, "--policy", policy or "balanced", "--no-progress"], check=True)

    def load(self, job: Job) -> dict[str, Any]:
        # else pictures are made smaller that take much of a context, and the context here has no room for more
        sees = all((job.source / name).is_file() for name in SIGHT)
        self.model = pio.load(
            job.source if job.variant in STORED else job.converted,
            threads=job.threads,
            activation_dtype=STORED.get(job.variant),
            context_length=max(job.context, job.shared_context),
            cache_tokens=max(job.context, job.sequences * job.shared_context),
            max_batch_sequences=job.sequences,
            progress=False,
            prefix_cache=False,  # the same prompts come again
            speculation="off",  # and so do the answers
            **({"max_pixels": 1 << 32} if sees else {}),
        )
        return {"version": pio.__version__, "weights": counted(job, self.bytes_read)}

    def bytes_read(self) -> int:
        """Return the bytes of weights that a token reads."""
        from pio.benchmarks.measure import weights_per_token

        return round(weights_per_token(self.model))

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        began = time.perf_counter()
        params = pio.SamplingParams(max_new_tokens=new_tokens, temperature=0.0, ignore_eos=True)
        streams = [self.model.submit(prompt, params).events() for prompt in prompts]
        seconds: list[float] = []
        for _ in range(new_tokens):
            for stream in streams:
                next(stream)
            seconds.append(time.perf_counter() - began)
        return seconds

    def see(self, picture: Path, text: str) -> Seen:
        began = time.perf_counter()
        params = pio.SamplingParams(max_new_tokens=1, temperature=0.0, ignore_eos=True)
        asked = self.model.submit({"text": text, "image": picture}, params)
        events = asked.events()  # which would cancel the request if they were dropped before its end
        next(events)
        seconds = time.perf_counter() - began
        answer = asked.result()
        # the decoder begins when the picture is encoded
        return Seen(seconds, answer.usage.prompt_tokens, seconds - answer.timings.prefill)


if __name__ == "__main__":
    serve(Engine())
