"""pio runs open language models inside your Python program.

>>> import pio
>>> with pio.load("demo") as model:
...     text = model.generate_text("def fibonacci(n):", max_new_tokens=16)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pio.errors import (
    CacheError,
    CancelledError,
    CapacityError,
    CheckpointError,
    ConfigError,
    DeadlineError,
    DeviceError,
    MediaError,
    NumericalError,
    OutOfMemoryError,
    PioError,
    RecordingError,
    RefusedAnswerError,
    TensorError,
    UnfinishedAnswerError,
    UnsupportedModelError,
)
from pio.memory import compiled
from pio.shelter import import_whole
from pio.version import __version__ as __version__

if TYPE_CHECKING:
    from pio import ops
    from pio.config.runtime import RuntimeConfig
    from pio.dtypes import DType, bfloat16, float16, float32, int8, int32, int64, uint8
    from pio.engine.generation import Generation, Timings, TokenEvent, TokenLogprobs, Usage
    from pio.engine.handle import Handle, Stream
    from pio.engine.sampling_params import SamplingParams
    from pio.engine.stats import Stats
    from pio.plugin import TextModelPlugin
    from pio.plugin.loader import load
    from pio.plugin.manifest import PluginManifest
    from pio.plugin.metadata import ModelMetadata
    from pio.plugin.quantizer import quantize
    from pio.tensor import Tensor
    from pio.text.calling.tool_call import ToolCall
    from pio.text.encoded_prompt import EncodedPrompt, PromptEmbeddings

__all__ = [
    "CacheError",
    "CancelledError",
    "CapacityError",
    "DeadlineError",
    "CheckpointError",
    "ConfigError",
    "DType",
    "DeviceError",
    "EncodedPrompt",
    "Generation",
    "Handle",
    "MediaError",
    "ModelMetadata",
    "NumericalError",
    "OutOfMemoryError",
    "PioError",
    "PluginManifest",
    "PromptEmbeddings",
    "RecordingError",
    "RefusedAnswerError",
    "RuntimeConfig",
    "SamplingParams",
    "Stream",
    "Tensor",
    "TensorError",
    "TextModelPlugin",
    "Timings",
    "TokenEvent",
    "TokenLogprobs",
    "ToolCall",
    "UnfinishedAnswerError",
    "UnsupportedModelError",
    "Usage",
    "Stats",
    "bfloat16",
    "float16",
    "float32",
    "int8",
    "int32",
    "int64",
    "load",
    "ops",
    "quantize",
    "uint8",
]

# Imported when first used: importing pio takes milliseconds, and never numba.
_LAZY = {
    "RuntimeConfig": "pio.config.runtime",
    "SamplingParams": "pio.engine.sampling_params",
    "Tensor": "pio.tensor",
    "ToolCall": "pio.text.calling.tool_call",
    "TextModelPlugin": "pio.plugin",
    "ModelMetadata": "pio.plugin.metadata",
    "PluginManifest": "pio.plugin.manifest",
    "load": "pio.plugin.loader",
    "quantize": "pio.plugin.quantizer",
    **dict.fromkeys(("EncodedPrompt", "PromptEmbeddings"), "pio.text.encoded_prompt"),
    **dict.fromkeys(("Handle", "Stream"), "pio.engine.handle"),
    **dict.fromkeys(("Generation", "Timings", "TokenEvent", "TokenLogprobs", "Usage"), "pio.engine.generation"),
    "Stats": "pio.engine.stats",
    **dict.fromkeys(("DType", "bfloat16", "float16", "float32", "int8", "int32", "int64", "uint8"), "pio.dtypes"),
}

compiled.provide(lambda: import_whole("pio.ops"))


def __getattr__(name: str) -> Any:
    if name == "ops":
        return import_whole("pio.ops")
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'pio' has no attribute {name!r}")
    value = globals()[name] = getattr(import_whole(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
