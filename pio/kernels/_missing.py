"""Errors that say why a GPU has no kernel for an operation."""

from __future__ import annotations

from typing import Final

from pio.errors import DeviceError

UNMADE: Final = "kernels that cannot be made"  # what a target keeps their names by, in a set


class MissingKernel(DeviceError):
    """A kernel is switched off, cannot be made for this GPU, or was never written; the CPU's does the same."""


class NoCompiler(DeviceError):
    """A kernel has to be compiled, and what compiles it is not installed."""
