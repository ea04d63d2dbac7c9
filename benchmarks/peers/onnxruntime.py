"""onnxruntime-genai: its model builder and its generator, a token at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.worker import Job, counted, serve

MODEL = "model.onnx"
OPTIONS = ["prune_lm_head=true", "accuracy_level=4", "block_size=32", "hf_token=false"]


class Engine:
    def convert(self, job: Job) -> None:
        """Build the model; every matrix product reads groups of 32 and takes activations of eight bits."""
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", job.source, "-o", job.converted]
        command += ["-p", job.variant, "-e", "cpu", "-c", job.converted / "scratch", "--extra_options", *OPTIONS]
        subprocess.run(command, check=True)

    def load(self, job: Job) -> dict[str, Any]:
        import onnxruntime_genai

        self.job = job
        config = onnxruntime_genai.Config(str(job.converted))
        config.overlay(f'{{"model": {{"decoder": {{"session_options": {{"intra_op_num_threads": {job.threads}}}}}}}}}')
        self.model = onnxruntime_genai.Model(config)
        weights = counted(job, lambda: bytes_read(job.converted / MODEL))
        return {"version": onnxruntime_genai.__version__, "weights": weights}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        import numpy
        import onnxruntime_genai

        length = len(prompts[0])
        options = onnxruntime_genai.GeneratorParams(self.model)
        options.set_search_options(
            do_sample=False, batch_size=len(prompts), min_length=length + new_tokens, max_length=length + new_tokens
        )
        generator = onnxruntime_genai.Generator(self.model, options)
        began = time.perf_counter()
        generator.append_tokens(numpy.array(prompts, numpy.int32))
        seconds: list[float] = []
        for _ in range(new_tokens):
            generator.generate_next_token()
            seconds.append(time.perf_counter() - began)
        return seconds


def bytes_read(model: Path) -> int:
    """Return the bytes of weights that a token reads: all but the tables of which it takes a row."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    multiplied = {name for node in graph.node if not node.op_type.startswith("Gather") for name in node.input}
    stored = {tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in graph.initializer}
    parts = {entry.get("offset"): int(entry["length"]) for name, entry in stored.items() if name in multiplied if entry}
    return sum(parts.values())


if __name__ == "__main__":
    serve(Engine())
