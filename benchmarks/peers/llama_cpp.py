"""llama.cpp, by the C functions that llama-cpp-python wraps: decode and argmax, nothing else."""

from __future__ import annotations

import ctypes
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import worker
from benchmarks.peers.gguf_file import bytes_read, write_gguf
from benchmarks.peers.worker import Job, counted, serve

FILE = "model.gguf"
BATCH = 512  # tokens of the largest step, llama.cpp's own default
BLOCK = 256  # cache sizes are multiples of it


class Engine:
    def convert(self, job: Job) -> None:
        """Quantize the GGUF file; the head keeps 6 or 8 bits unless the variant is pure."""
        import llama_cpp

        exported = job.converted.parent / "exported"
        if not (exported / worker.MARK).is_file():
            export(job.source, exported)
        if job.variant == "BF16":
            (job.converted / FILE).symlink_to(exported / FILE)
            return
        kind, _, pure = job.variant.partition("-")
        params = llama_cpp.llama_model_quantize_default_params()
        params.nthread = job.threads
        params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
        params.pure = pure == "pure"
        source, target = bytes(exported / FILE), bytes(job.converted / FILE)
        if llama_cpp.llama_model_quantize(source, target, ctypes.byref(params)) != 0:
            raise RuntimeError(f"llama.cpp could not quantize to {job.variant}")

    def load(self, job: Job) -> dict[str, Any]:
        import llama_cpp

        self.job, self.contexts = job, {}
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            bytes(job.converted / FILE), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError("llama.cpp could not load the model")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        weights = counted(job, lambda: bytes_read(job.converted / FILE))
        return {"version": llama_cpp.__version__, "weights": weights}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        import llama_cpp
        import numpy

        context, batch = self.context(len(prompts))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        began = time.perf_counter()
        tokens = [
            (token, position, sequence, position == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        past = [len(prompt) for prompt in prompts]
        newest = [0] * len(prompts)
        seconds: list[float] = []
        for _ in range(new_tokens):
            for start in range(0, len(tokens), BATCH):
                step = tokens[start : start + BATCH]
                fill(batch, step)
                if llama_cpp.llama_decode(context, batch) != 0:
                    raise RuntimeError("llama.cpp could not decode")
                for row, (_, _, sequence, wanted) in enumerate(step):
                    if wanted:
                        logits = llama_cpp.llama_get_logits_ith(context, row)
                        newest[sequence] = int(numpy.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())
            seconds.append(time.perf_counter() - began)
            tokens = [(newest[i], past[i], i, True) for i in range(len(prompts))]
            past = [length + 1 for length in past]
        return seconds

    def context(self, sequences: int) -> tuple[Any, Any]:
        """Return the context and the batch for so many sequences, made when first asked for."""
        import llama_cpp

        if sequences not in self.contexts:
            job = self.job
            each = -(-(job.context if sequences == 1 else job.shared_context) // BLOCK) * BLOCK
            params = llama_cpp.llama_context_default_params()
            params.n_ctx, params.n_seq_max = sequences * each, sequences
            params.n_batch = params.n_ubatch = BATCH
            params.n_threads = params.n_threads_batch = job.threads
            context = llama_cpp.llama_init_from_model(self.model, params)
            if not context:
                raise RuntimeError("llama.cpp could not make a context")
            self.contexts[sequences] = context, llama_cpp.llama_batch_init(BATCH, 0, 1)
        return self.contexts[sequences]


def fill(batch: Any, tokens: list[tuple[int, int, int, bool]]) -> None:
    """Put tokens, each with position, sequence and whether logits are wanted, into a batch."""
    batch.n_tokens = len(tokens)
    for i, (token, position, sequence, wanted) in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence


def export(source: Path, folder: Path) -> None:
    """Write the GGUF file that all variants begin with."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_gguf(source, folder / FILE)
    (folder / worker.MARK).touch()


if __name__ == "__main__":
    serve(Engine())
