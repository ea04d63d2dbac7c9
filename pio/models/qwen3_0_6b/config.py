"""Configuration of Qwen3-0.6B, one of the models of the architecture in ``pio.config.qwen3``."""

from __future__ import annotations

from pio.config.qwen3 import Qwen3Architecture


class Qwen3Config(Qwen3Architecture, frozen=True):
    """config.json of Qwen3-0.6B.

    28 layers of width 1024, 16 query heads to 8 key and value heads, tied embeddings, rotary base
    1,000,000. What else a ``qwen3`` checkpoint may say is read too, for the plugin runs all of them that are about as
    large: other sizes, biases, sliding windows, stretched contexts.
    """
