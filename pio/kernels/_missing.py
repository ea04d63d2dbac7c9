"""Errors that say why a GPU has no kernel for an operation."""

from __future__ import annotations

from pio.errors import DeviceError


class MissingKernel(DeviceError):
    """A kernel is switched off, cannot be made for this GPU, or was never written; the CPU's does the same."""


class NoCompiler(DeviceError):
    """A kernel has to be compiled, and what compiles it is not installed."""
