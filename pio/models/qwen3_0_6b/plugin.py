"""The plugin for Qwen3-0.6B and other dense Qwen3 models that think before they answer."""

from __future__ import annotations

from typing import Any, ClassVar

from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_0_6b.config import Qwen3Config
from pio.models.qwen3_0_6b.model import build
from pio.plugin import TextModelPlugin


class Qwen3_0_6BPlugin(TextModelPlugin):
    """Runs Qwen3-0.6B.

    Thinking is switched by ``enable_thinking`` of the chat template, and within a conversation by ``/think`` and
    ``/no_think`` in a message, which the model was trained to follow.
    """

    manifest_name: ClassVar[str] = "qwen3_0_6b"
    config_class: ClassVar[type[DecoderConfig]] = Qwen3Config
    call_format: ClassVar[str | None] = "hermes"
    # in the vocabulary of every Qwen3; the demo model, which runs with this plugin, was trained on them
    fill_marks: ClassVar[tuple[str, str, str] | None] = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")

    def build_model(self, config: Qwen3Config, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
        """Build the decoder; see ``model.py``."""
        return build(config, source, runtime, budget)


def create_qwen3_0_6b_plugin(**options: Any) -> Qwen3_0_6BPlugin:
    """Make the plugin; options as ``TextModelPlugin.initialize`` takes them."""
    plugin = Qwen3_0_6BPlugin()
    plugin.initialize(**options)
    return plugin
