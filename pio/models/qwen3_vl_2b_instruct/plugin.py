"""The plugin for Qwen3-VL-2B-Instruct and other dense Qwen3-VL models."""

from __future__ import annotations

from typing import Any, ClassVar

from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.loading.checkpoint import Checkpoint
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_vl_2b_instruct.config import Qwen3VLConfig
from pio.models.qwen3_vl_2b_instruct.model import build
from pio.models.qwen3_vl_2b_instruct.processor import VisionProcessor
from pio.plugin import TextModelPlugin
from pio.text.tokenizer import Tokenizer


class Qwen3VL2BPlugin(TextModelPlugin):
    """Runs Qwen3-VL-2B-Instruct: text, pictures and videos in, text out."""

    manifest_name: ClassVar[str] = "qwen3_vl_2b_instruct"
    config_class: ClassVar[type[DecoderConfig]] = Qwen3VLConfig
    call_format: ClassVar[str | None] = "hermes"

    def build_model(
        self, config: Qwen3VLConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget
    ) -> Decoder:
        """Build decoder and tower; see ``model.py``."""
        return build(config, source, runtime, budget)

    def media_processor(
        self, checkpoint: Checkpoint, config: Qwen3VLConfig, tokenizer: Tokenizer | None, runtime: RuntimeConfig
    ) -> VisionProcessor:
        """Return what reads pictures and videos; see ``processor.py``."""
        return VisionProcessor(checkpoint, config, tokenizer, runtime)


def create_qwen3_vl_2b_instruct_plugin(**options: Any) -> Qwen3VL2BPlugin:
    """Make the plugin; options as ``TextModelPlugin.initialize`` takes them."""
    plugin = Qwen3VL2BPlugin()
    plugin.initialize(**options)
    return plugin
