"""Small models of every architecture, and the kernels of a token that one of them decodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from pio.benchmarks.gpu.published import PUBLISHED
from pio.benchmarks.random_model import random_model
from pio.benchmarks.subject import token_ids

SMALL = {
    "hidden_size": 192,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1024,
    "eos_token_id": 7,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 96}
DELTA = {
    "linear_key_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 64,
    "shared_expert_intermediate_size": 160,
    "num_hidden_layers": 4,
}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 64,
    "q_lora_rank": 96,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 48,
    "n_routed_experts": 8,
    **EXPERTS,
}
CUT = {
    "Qwen3-0.6B": SMALL,
    "Qwen3-Coder-30B": {**SMALL, **EXPERTS},
    "Qwen3-Coder-Next": {**SMALL, **EXPERTS, **DELTA},
    "GLM-4.7-Flash": {
        key: value for key, value in {**SMALL, **LATENT}.items() if key not in ("head_dim", "num_experts")
    },
}


def small(name):
    return {**PUBLISHED[name], **CUT[name]}


@contextmanager
def decoding(
    raw: dict[str, Any], names: list[str], prompt: int = 40, **options: Any
) -> Generator[tuple[Any, Counter[str]]]:
    """Yield a model with random weights, and how often each kernel runs in a token that it decodes.

    Args:
        raw: What config.json holds.
        names: To which somebody adds the name of each kernel that a step records.
        prompt: Tokens behind which it comes.
        options: Of the runtime.
    """
    options = {"context_length": 512, "prefix_cache": False, "speculation": "off", **options}
    with random_model(raw, **options) as model:
        ids = token_ids(model, prompt)
        model.generate(ids, max_new_tokens=1, temperature=0.0)
        before = len(names)
        model.generate(ids, max_new_tokens=2, temperature=0.0, ignore_eos=True)
        yield model, Counter(names[before:])


def plain(kernel: str) -> str:
    """Return the name by which a recorded step knows a kernel: ``_linears.linears[int4]`` is ``linears_int4``."""
    return kernel.partition(".")[2].replace("[", "_").rstrip("]")
