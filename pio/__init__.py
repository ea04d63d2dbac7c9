"""pio runs open language models inside your Python program.

>>> import pio
>>> with pio.load("demo") as model:
...     text = model.generate_text("def fibonacci(n):", max_new_tokens=16)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pio.errors import (
    CancelledError,
    CapacityError,
    CheckpointError,
    ConfigError,
    DeviceError,
    NumericalError,
    OutOfMemoryError,
    PioError,
    TensorError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from pio import ops
    from pio.config.runtime import RuntimeConfig
    from pio.dtypes import bfloat16, float16, float32, int8, int32, int64, uint8
    from pio.engine.generation import Generation
    from pio.engine.sampling_params import SamplingParams
    from pio.loader import load
    from pio.plugin import TextModelPlugin
    from pio.tensor import Tensor

__version__ = "0.1.0"

__all__ = [
    "CancelledError",
    "CapacityError",
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "Generation",
    "NumericalError",
    "OutOfMemoryError",
    "PioError",
    "RuntimeConfig",
    "SamplingParams",
    "Tensor",
    "TensorError",
    "TextModelPlugin",
    "UnsupportedModelError",
    "bfloat16",
    "float16",
    "float32",
    "int8",
    "int32",
    "int64",
    "load",
    "ops",
    "uint8",
]

# Imported when first used: importing pio takes milliseconds, and never numba.
_LAZY = {
    "Generation": "pio.engine.generation",
    "RuntimeConfig": "pio.config.runtime",
    "SamplingParams": "pio.engine.sampling_params",
    "Tensor": "pio.tensor",
    "TextModelPlugin": "pio.plugin",
    "load": "pio.loader",
    **dict.fromkeys(("bfloat16", "float16", "float32", "int8", "int32", "int64", "uint8"), "pio.dtypes"),
}


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("pio.ops")
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'pio' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
