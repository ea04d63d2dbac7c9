"""Weights for blocks under test: random tensors by name, in a source as a model has one."""

from __future__ import annotations

from pio.dtypes import dtype
from pio.layers.quantization import Quantization
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.testing.random_checkpoint import RandomTensors


def source(*, kind: str = "float32", quantize: str | None = None, policy: str = "uniform", rows: int = 16) -> Source:
    """Return a source of random tensors, quantized or not."""
    return Source(RandomTensors(dtype(kind)), Workspace(rows), quantization=Quantization.of(quantize, policy))
