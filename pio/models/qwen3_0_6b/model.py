"""Qwen3-0.6B and other dense Qwen3 models: grouped-query attention with normed heads, SwiGLU (arXiv:2505.09388)."""

from __future__ import annotations

from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.grouped_query_decoder import grouped_query_decoder
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_0_6b.config import Qwen3Config


def build(config: Qwen3Config, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together: as ``grouped_query_decoder`` stands, whose names are those of the checkpoint's tensors.

    Qwen3-0.6B stores an output head beside the embedding that it is tied to; they are equal, and one is skipped.
    """
    return grouped_query_decoder(config, source, runtime, budget)
