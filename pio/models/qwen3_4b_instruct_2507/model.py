"""Qwen3-4B-Instruct-2507 and other dense Qwen3 models: grouped queries with normed heads, SwiGLU (arXiv:2505.09388)."""

from __future__ import annotations

from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.grouped_query_decoder import grouped_query_decoder
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_4b_instruct_2507.config import Qwen3Config


def build(config: Qwen3Config, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together: as ``grouped_query_decoder`` stands, whose names are those of the checkpoint's tensors.

    Of Qwen3-4B-Instruct-2507 every layer sees all positions of its long context; checkpoints whose config asks for
    windows get them.
    """
    return grouped_query_decoder(config, source, runtime, budget)
