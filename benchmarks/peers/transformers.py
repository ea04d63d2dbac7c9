"""transformers on PyTorch: the model's forward call and argmax, without what ``generate`` adds to a token."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.peers.worker import Job, serve


class Engine:
    def convert(self, job: Job) -> None:
        """Nothing to do: the folder runs as it is."""

    def load(self, job: Job) -> dict[str, Any]:
        import torch
        import transformers

        torch.set_num_threads(job.threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            job.source, dtype=getattr(torch, job.variant), attn_implementation="sdpa", local_files_only=True
        ).eval()
        weights = sum(tensor.nbytes for tensor in self.model.parameters())
        return {"version": f"{transformers.__version__}, torch {torch.__version__}", "weights": weights}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        import torch
        from transformers import DynamicCache

        began = time.perf_counter()
        seconds: list[float] = []
        with torch.inference_mode():
            tokens, cache = torch.tensor(prompts), DynamicCache(config=self.model.config)
            for _ in range(new_tokens):
                logits = self.model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
                tokens = logits[:, -1].argmax(-1, keepdim=True)
                tokens.tolist()
                seconds.append(time.perf_counter() - began)
        return seconds


if __name__ == "__main__":
    serve(Engine())
