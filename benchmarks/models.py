"""Prefill, decode and peak memory of whole models: the demo, and a random one of the architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pio
from pio.testing.random_checkpoint import write_random_checkpoint

RANDOM: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 4099,
    "hidden_size": 320,
    "intermediate_size": 832,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "rope_theta": 1e6,
    "torch_dtype": "bfloat16",
}
PROMPT, ANSWER = 256, 64
MODELS = ["demo", "random"]


def folder_of(name: str, made: str) -> str:
    return made if name == "random" else name


class Generate:
    params = MODELS
    param_names = ("model",)

    def setup_cache(self) -> str:
        return str(write_random_checkpoint(Path("random").absolute(), RANDOM))

    def setup(self, made: str, name: str) -> None:
        self.model = pio.load(folder_of(name, made), plugin="qwen3_0_6b", progress=False)
        self.ids = [(7 * i + 3) % 4096 for i in range(PROMPT)]
        self.time_prefill(made, name)
        self.time_decode(made, name)
        self.time_batch_of_eight(made, name)

    def teardown(self, made: str, name: str) -> None:
        self.model.cleanup()

    def time_prefill(self, made: str, name: str) -> None:
        """256 tokens in, one out."""
        self.model.generate(self.ids, max_new_tokens=1, temperature=0.0, ignore_eos=True)

    def time_decode(self, made: str, name: str) -> None:
        """Two tokens in, 64 out."""
        self.model.generate(self.ids[:2], max_new_tokens=ANSWER, temperature=0.0, ignore_eos=True)

    def time_batch_of_eight(self, made: str, name: str) -> None:
        """Eight times sixteen tokens in, 32 out."""
        prompts = [self.ids[16 * i : 16 * i + 16] for i in range(8)]
        self.model.infer_batch(prompts, max_new_tokens=32, temperature=0.0, ignore_eos=True)

    def track_decode(self, made: str, name: str) -> float:
        """Tokens a second of one answer."""
        result = self.model.generate(self.ids[:2], max_new_tokens=4 * ANSWER, temperature=0.0, ignore_eos=True)
        return result.timings.tokens_per_second

    track_decode.unit = "tokens/s"  # type: ignore[attr-defined]


class Memory:
    """``peakmem_reference`` is what an interpreter with pio and its compiled kernels takes without a model."""

    def peakmem_reference(self) -> None:
        pio.ops.softmax(pio.Tensor.zeros((1, 4)))

    def peakmem_demo(self) -> None:
        with pio.load("demo", progress=False, context_length=1024) as model:
            model.generate([3] * PROMPT, max_new_tokens=16, ignore_eos=True)
