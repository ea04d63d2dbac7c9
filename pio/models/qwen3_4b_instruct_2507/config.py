"""Configuration of Qwen3-4B-Instruct-2507, one of the models of the architecture in ``pio.config.qwen3``."""

from __future__ import annotations

from pio.config.qwen3 import Qwen3Architecture


class Qwen3Config(Qwen3Architecture, frozen=True):
    """config.json of Qwen3-4B-Instruct-2507.

    36 layers of width 2560, 32 query heads to 8 key and value heads, tied embeddings. Its context of 262,144 tokens
    needs no stretching: it was trained with a rotary base of 5,000,000. Other ``qwen3`` checkpoints of about this size
    are read too.
    """
