"""transformers on PyTorch, where models see: its picture processor on Pillow, and the model's forward call."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.peers import transformers
from benchmarks.peers.worker import Job, Seen, serve


class Engine(transformers.Engine):
    def load(self, job: Job) -> dict[str, Any]:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, __version__

        torch.set_num_threads(job.threads)
        self.model = AutoModelForImageTextToText.from_pretrained(
            job.source, dtype=getattr(torch, job.variant), attn_implementation="sdpa", local_files_only=True
        ).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(job.source, local_files_only=True)
        self.pictures = AutoImageProcessor.from_pretrained(job.source, backend="pil", local_files_only=True)
        weights = sum(tensor.nbytes for tensor in self.model.parameters())
        return {"version": f"{__version__}, torch {torch.__version__}", "weights": weights}

    def see(self, picture: Path, text: str) -> Seen:
        import torch
        from PIL import Image

        encoded: list[float] = []
        config = self.model.config
        began = time.perf_counter()
        with Image.open(picture) as image:
            made = self.pictures(images=[image.convert("RGB")], return_tensors="pt")
        count = int(made["image_grid_thw"].prod()) // config.vision_config.spatial_merge_size**2
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        prompt = self.tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids[0]
        ids = ids.repeat_interleave(torch.where(ids == config.image_token_id, count, 1))[None]
        kinds = (ids == config.image_token_id).int()
        visual = self.model.model.visual
        hook = visual.register_forward_hook(lambda *_: encoded.append(time.perf_counter() - began))
        try:
            with torch.inference_mode():
                logits = self.model(ids, mm_token_type_ids=kinds, use_cache=True, logits_to_keep=1, **made).logits
                logits[0, -1].argmax().item()
        finally:
            hook.remove()
        return Seen(time.perf_counter() - began, ids.shape[1], encoded[0])


if __name__ == "__main__":
    serve(Engine())
