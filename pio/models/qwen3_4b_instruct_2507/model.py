"""Qwen3-4B-Instruct-2507, a dense decoder: grouped-query attention with normed heads, SwiGLU (arXiv:2505.09388)."""

from __future__ import annotations

from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.grouped_query_decoder import grouped_query_decoder
from pio.layers.mlp import SwiGLU
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_4b_instruct_2507.config import Qwen3Config


def build(config: Qwen3Config, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together; the names are those of the checkpoint's tensors."""

    def mlp(at: Source, i: int) -> SwiGLU:
        return SwiGLU(at, config.hidden_size, config.intermediate_size)

    return grouped_query_decoder(config, source, runtime, budget, feed_forward=mlp)
