"""What a loaded model is, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pio.plugin import TextModelPlugin


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A plugin and the model it has loaded.

    Attributes:
        name: The plugin.
        version: The plugin's version.
        description: The plugin in one sentence.
        path: The model's folder.
        listed: Whether the plugin was made for this very model, or runs it as another size of the architecture.
        model_type: Architecture.
        parameters: Number of weights.
        modalities: What goes in.
        capabilities: What the plugin's own checkpoints were trained for.
        context_length: Tokens of prompt and answer together.
        vocab_size: Length of a row of logits.
        memory: Bytes of weights, cache and buffers; zero while not loaded.
    """

    name: str
    version: str
    description: str
    path: str | None
    listed: bool
    model_type: str
    parameters: int
    modalities: tuple[str, ...]
    capabilities: tuple[str, ...]
    context_length: int
    vocab_size: int
    memory: dict[str, int]

    @classmethod
    def of(cls, plugin: TextModelPlugin) -> ModelMetadata:
        """Describe a plugin; what depends on the model is that of its manifest while none is loaded."""
        manifest, config = plugin.manifest, plugin.config
        loaded: dict[str, Any] = {"model_type": manifest.model_types[0], "parameters": manifest.parameters}
        context = vocab = 0
        if config is not None:
            loaded = {"model_type": config.model_type, "parameters": config.parameters}
            context, vocab = min(plugin.runtime.context_length, config.max_positions), config.vocab_size
        return cls(
            name=manifest.name,
            version=manifest.version,
            description=manifest.description,
            path=plugin.path,
            listed=plugin.listed,
            modalities=manifest.modalities,
            capabilities=manifest.capabilities,
            context_length=context,
            vocab_size=vocab,
            memory=plugin.memory,
            **loaded,
        )
