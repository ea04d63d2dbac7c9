"""Recorded steps: operations that run again in one call, on the same memory."""

from __future__ import annotations

from pio.kernels.parallel import Program, recording

__all__ = ["Program", "recording"]
