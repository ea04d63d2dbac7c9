"""Configuration of Qwen3-0.6B, one of the models of the architecture in ``pio.config.qwen3``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pio.config.qwen3 import Qwen3Architecture


class Qwen3Config(Qwen3Architecture, frozen=True):
    """config.json of Qwen3-0.6B; every other ``qwen3`` checkpoint is read as well.

    Attributes:
        released: What tells the released model from others of its architecture, by the names of config.json. No default
            of absent fields: those are the architecture's.
    """

    released: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "max_position_embeddings": 40_960,
        "rope_theta": 1_000_000,
        "tie_word_embeddings": True,
    }
