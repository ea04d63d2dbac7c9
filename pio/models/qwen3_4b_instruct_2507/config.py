"""Configuration of Qwen3-4B-Instruct-2507, one of the models of the architecture in ``pio.config.qwen3``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pio.config.qwen3 import Qwen3Architecture


class Qwen3Config(Qwen3Architecture, frozen=True):
    """config.json of Qwen3-4B-Instruct-2507; every other ``qwen3`` checkpoint is read as well.

    Attributes:
        released: What tells the released model from others of its architecture, by the names of config.json. No default
            of absent fields: those are the architecture's.
    """

    released: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262_144,  # nothing is stretched: the rotary base was raised instead
        "rope_theta": 5_000_000,
        "tie_word_embeddings": True,
    }
