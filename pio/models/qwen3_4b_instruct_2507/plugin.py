"""The plugin for Qwen3-4B-Instruct-2507, a dense Qwen3 model that answers without thinking."""

from __future__ import annotations

from typing import Any, ClassVar

from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_4b_instruct_2507.config import Qwen3Config
from pio.models.qwen3_4b_instruct_2507.model import build
from pio.plugin import TextModelPlugin


class Qwen3_4BInstruct2507Plugin(TextModelPlugin):
    """Runs Qwen3-4B-Instruct-2507.

    The model follows instructions over long conversations; ``fit_messages`` keeps one within a budget of tokens.
    """

    manifest_name: ClassVar[str] = "qwen3_4b_instruct_2507"
    config_class: ClassVar[type[DecoderConfig]] = Qwen3Config
    call_format: ClassVar[str | None] = "hermes"

    def build_model(self, config: Qwen3Config, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
        """Build the decoder; see ``model.py``."""
        return build(config, source, runtime, budget)


def create_qwen3_4b_instruct_2507_plugin(**options: Any) -> Qwen3_4BInstruct2507Plugin:
    """Make the plugin; options as ``TextModelPlugin.initialize`` takes them."""
    plugin = Qwen3_4BInstruct2507Plugin()
    plugin.initialize(**options)
    return plugin
