"""Prefill, decode and peak memory of whole models: the demo, and a random one of the architecture, in each format."""

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
PROMPT, ANSWER, TOGETHER = 512, 64, 8
MODELS = ["demo", "random"]
STORED = "bfloat16"  # both folders; the others are packed while loading
ROUNDED = "bfloat16, inputs too"  # the same with inputs of layers rounded
WEIGHTS = [STORED, ROUNDED, "int8", "int4"]


def random_folder() -> str:
    return str(write_random_checkpoint(Path("random").absolute(), RANDOM))


def load(made: str, name: str, weights: str, **options: Any) -> pio.TextModelPlugin:
    return pio.load(
        made if name == "random" else name,
        plugin="qwen3_0_6b",
        quantize=None if weights in (STORED, ROUNDED) else weights,
        activation_dtype="bfloat16" if weights == ROUNDED else None,
        progress=False,
        prefix_cache=False,  # the same prompts come again and again
        speculation="off",  # and so do the answers
        **options,
    )


class Generate:
    params = (MODELS, WEIGHTS)
    param_names = ("model", "weights")

    def setup_cache(self) -> str:
        return random_folder()

    def setup(self, made: str, name: str, weights: str) -> None:
        self.model = load(made, name, weights)
        self.ids = [(7 * i + 3) % 4096 for i in range(PROMPT)]
        self.time_prefill(made, name, weights)
        self.time_decode(made, name, weights)
        self.time_batch_of_eight(made, name, weights)

    def teardown(self, made: str, name: str, weights: str) -> None:
        self.model.cleanup()

    def time_prefill(self, made: str, name: str, weights: str) -> None:
        """512 tokens in, one out."""
        self.model.generate(self.ids, max_new_tokens=1, temperature=0.0, ignore_eos=True)

    def time_decode(self, made: str, name: str, weights: str) -> None:
        """Two tokens in, 64 out."""
        self.model.generate(self.ids[:2], max_new_tokens=ANSWER, temperature=0.0, ignore_eos=True)

    def time_batch_of_eight(self, made: str, name: str, weights: str) -> None:
        """Eight times sixteen tokens in, 32 out."""
        prompts = [self.ids[16 * i : 16 * i + 16] for i in range(TOGETHER)]
        self.model.infer_batch(prompts, max_new_tokens=ANSWER // 2, temperature=0.0, ignore_eos=True)

    def track_prefill(self, made: str, name: str, weights: str) -> float:
        """Tokens a second of a prompt of 512."""
        result = self.model.generate(self.ids, max_new_tokens=1, temperature=0.0, ignore_eos=True)
        return PROMPT / result.timings.prefill

    def track_decode(self, made: str, name: str, weights: str) -> float:
        """Tokens a second of one answer."""
        result = self.model.generate(self.ids[:2], max_new_tokens=4 * ANSWER, temperature=0.0, ignore_eos=True)
        return result.timings.tokens_per_second

    def track_batch_of_eight(self, made: str, name: str, weights: str) -> float:
        """Tokens a second of eight answers together."""
        prompts = [self.ids[16 * i : 16 * i + 16] for i in range(TOGETHER)]
        results = self.model.infer_batch(prompts, max_new_tokens=ANSWER, temperature=0.0, ignore_eos=True)
        return sum(result.timings.tokens_per_second for result in results)

    for track in (track_prefill, track_decode, track_batch_of_eight):
        track.unit = "tokens/s"  # type: ignore[attr-defined]
    del track


class Memory:
    params = (MODELS, WEIGHTS)
    param_names = ("model", "weights")

    def setup_cache(self) -> str:
        return random_folder()

    def peakmem_answer(self, made: str, name: str, weights: str) -> None:
        """Load, 512 tokens in, 16 out."""
        with load(made, name, weights, context_length=1024) as model:
            model.generate([3] * PROMPT, max_new_tokens=16, ignore_eos=True)


class Interpreter:
    def peakmem_without_a_model(self) -> None:
        """What an interpreter with pio and a compiled kernel takes."""
        pio.ops.softmax(pio.Tensor.zeros((1, 4)))
