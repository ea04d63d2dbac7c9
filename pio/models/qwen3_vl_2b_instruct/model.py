"""Qwen3-VL: a tower that looks at pictures, and a dense Qwen3 decoder whose first layers see more of them.

Qwen3-VL technical report, arXiv:2511.21631; deep-stack features: Meng et al. 2024, arXiv:2406.04334.
"""

from __future__ import annotations

from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.grouped_query_decoder import grouped_query_decoder
from pio.layers.rotary import MultiAxisRotaryEmbedding
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_vl_2b_instruct.config import Qwen3VLConfig
from pio.models.qwen3_vl_2b_instruct.vision_tower import VisionTower


def build(config: Qwen3VLConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together: the decoder as ``grouped_query_decoder`` stands, and the tower as its encoder."""
    rotary = MultiAxisRotaryEmbedding(source, config.rope, config.head_dim, config.pair_axes, axes=3)
    below, levels = "model.language_model", config.vision.levels
    decoder = grouped_query_decoder(config, source, runtime, budget, rotary=rotary, below=below, levels=levels)
    dtype = runtime.cache_dtype(decoder.norm.weight.dtype, packed=source.inventory.packed)
    decoder.encoder = VisionTower(source / "model" / "visual", config.vision, dtype, budget)
    return decoder
