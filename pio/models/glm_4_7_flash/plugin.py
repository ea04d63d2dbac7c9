"""The plugin for GLM-4.7-Flash, a mixture of experts with latent attention that thinks and calls tools."""

from __future__ import annotations

from typing import Any, ClassVar

from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.glm_4_7_flash.config import Glm4MoeLiteConfig
from pio.models.glm_4_7_flash.model import build
from pio.plugin import TextModelPlugin


class Glm47FlashPlugin(TextModelPlugin):
    """Runs GLM-4.7-Flash: 29.9 billion weights, of which a token meets 3.9 billion."""

    manifest_name: ClassVar[str] = "glm_4_7_flash"
    config_class: ClassVar[type[DecoderConfig]] = Glm4MoeLiteConfig
    call_format: ClassVar[str | None] = "glm"

    def build_model(
        self, config: Glm4MoeLiteConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget
    ) -> Decoder:
        """Build the decoder; see ``model.py``."""
        return build(config, source, runtime, budget)


def create_glm_4_7_flash_plugin(**options: Any) -> Glm47FlashPlugin:
    """Make the plugin; options as ``TextModelPlugin.initialize`` takes them."""
    plugin = Glm47FlashPlugin()
    plugin.initialize(**options)
    return plugin
