"""NVIDIA GPUs as pio sees them: what is asked of a driver (driver), who answers (bindings), one GPU (gpu), its memory.

Nothing of this is imported before a device named ``cuda`` is asked for.
"""
