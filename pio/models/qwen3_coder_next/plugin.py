"""The plugin for Qwen3-Coder-Next, a hybrid of recurrent layers and attention that writes code."""

from __future__ import annotations

from typing import Any, ClassVar

from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_coder_next.config import Qwen3NextConfig
from pio.models.qwen3_coder_next.model import build
from pio.plugin import TextModelPlugin


class Qwen3CoderNextPlugin(TextModelPlugin):
    """Runs Qwen3-Coder-Next: 79.7 billion weights, of which a token meets 3.9 billion."""

    manifest_name: ClassVar[str] = "qwen3_coder_next"
    config_class: ClassVar[type[DecoderConfig]] = Qwen3NextConfig
    call_format: ClassVar[str | None] = "qwen3_coder"
    fill_marks: ClassVar[tuple[str, str, str] | None] = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")

    def build_model(
        self, config: Qwen3NextConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget
    ) -> Decoder:
        """Build the decoder; see ``model.py``."""
        return build(config, source, runtime, budget)


def create_qwen3_coder_next_plugin(**options: Any) -> Qwen3CoderNextPlugin:
    """Make the plugin; options as ``TextModelPlugin.initialize`` takes them."""
    plugin = Qwen3CoderNextPlugin()
    plugin.initialize(**options)
    return plugin
