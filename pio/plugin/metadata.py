"""What a loaded model is, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pio.plugin.loaded_model import LoadedModel
    from pio.plugin.manifest import PluginManifest


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
        formats: How matrices are held, such as ``{"layers": "int4", "tables": "int8"}``; tables are the embedding and
            the output head. Empty before the model is loaded.
        memory: Bytes of weights, cache and buffers; zero while not loaded.
        device: Where it runs, such as ``"cuda:0"``; empty before it is loaded.
        offloaded: Numbers of the layers of which weights do not lie on the model's GPU: those that are ``copied`` there
            each time, and those whose experts are ``computed`` by the CPU.
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
    formats: dict[str, str]
    memory: dict[str, int]
    offloaded: dict[str, tuple[int, ...]]
    device: str = ""

    @classmethod
    def of(cls, manifest: PluginManifest, path: str | None, loaded: LoadedModel | None) -> ModelMetadata:
        """Describe a plugin; what depends on the model is that of its manifest where none is given."""
        return cls(
            name=manifest.name,
            version=manifest.version,
            description=manifest.description,
            path=path,
            listed=loaded is None or manifest.lists(loaded.config.model_dump()),
            model_type=loaded.config.model_type if loaded else manifest.model_types[0],
            parameters=loaded.config.parameters if loaded else manifest.parameters,
            modalities=manifest.modalities,
            capabilities=manifest.capabilities,
            context_length=loaded.context_length if loaded else 0,
            vocab_size=loaded.config.vocab_size if loaded else 0,
            formats=loaded.formats if loaded else {},
            memory=loaded.memory if loaded else {"weights": 0, "cache": 0, "buffers": 0},
            device=str(loaded.model.device) if loaded else "",
            offloaded=loaded.offloaded if loaded else {"copied": (), "computed": ()},
        )
