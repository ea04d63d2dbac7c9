"""A checkpoint whose sizes fit nothing: no width is a whole number of groups, no number of rows one of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pio.testing.random_checkpoint import write_random_checkpoint

# biases too, and a head of its own
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 83,
    "hidden_size": 76,
    "intermediate_size": 150,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 14,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "attention_bias": True,
    "dtype": "bfloat16",
    "eos_token_id": [3, 7],
}


def write_odd_checkpoint(folder: Path) -> Path:
    """Write it with random weights and no tokenizer; return the folder."""
    return write_random_checkpoint(folder, CONFIG, tokenizer=False)
