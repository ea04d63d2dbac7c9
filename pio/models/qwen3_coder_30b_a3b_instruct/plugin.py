"""The plugin for Qwen3-Coder-30B-A3B-Instruct, a mixture of experts that writes code."""

from __future__ import annotations

from typing import Any, ClassVar

from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_coder_30b_a3b_instruct.config import Qwen3MoeConfig
from pio.models.qwen3_coder_30b_a3b_instruct.model import build
from pio.plugin import TextModelPlugin


class Qwen3Coder30BA3BInstructPlugin(TextModelPlugin):
    """Runs Qwen3-Coder-30B-A3B-Instruct: 30.5 billion weights, of which a token meets 3.3 billion."""

    manifest_name: ClassVar[str] = "qwen3_coder_30b_a3b_instruct"
    config_class: ClassVar[type[DecoderConfig]] = Qwen3MoeConfig
    call_format: ClassVar[str | None] = "qwen3_coder"
    fill_marks: ClassVar[tuple[str, str, str] | None] = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")

    def build_model(
        self, config: Qwen3MoeConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget
    ) -> Decoder:
        """Build the decoder; see ``model.py``."""
        return build(config, source, runtime, budget)


def create_qwen3_coder_30b_a3b_instruct_plugin(**options: Any) -> Qwen3Coder30BA3BInstructPlugin:
    """Make the plugin; options as ``TextModelPlugin.initialize`` takes them."""
    plugin = Qwen3Coder30BA3BInstructPlugin()
    plugin.initialize(**options)
    return plugin
