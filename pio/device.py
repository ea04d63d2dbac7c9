"""The devices there are."""

from __future__ import annotations

from typing import Final, NoReturn

from pio.errors import DeviceError

DEVICES: Final = ("cpu",)
_MOVED: Final = {
    "ALIGNMENT": "pio.memory.allocation",
    "Allocation": "pio.memory.allocation",
    "allocated_bytes": "pio.memory.allocation",
    "MemoryBudget": "pio.memory.budget",
    "memory_errors": "pio.memory.refusal",
    "memory_refused": "pio.memory.refusal",
    "format_bytes": "pio.memory.sizes",
}


def check_device(name: str) -> str:
    """Return ``name`` if there is such a device; ``"auto"`` means the CPU.

    Raises:
        DeviceError: The name is unknown.
    """
    if name == "auto":
        return "cpu"
    if name not in DEVICES:
        raise DeviceError(f"unknown device {name!r}; this build of pio has {', '.join(DEVICES)}: use device='cpu'")
    return name


def __getattr__(name: str) -> NoReturn:
    """Say where a name is that plugins of other packages import from here."""
    if name in _MOVED:
        raise ImportError(f"pio.device.{name} has moved: import it from {_MOVED[name]}")
    raise AttributeError(f"module 'pio.device' has no attribute {name!r}")
