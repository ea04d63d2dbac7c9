"""Whether what is to be made fits into the memory of the machine: asked in one place, and refused in one sentence."""

from __future__ import annotations

from pio import machine
from pio.device import Device
from pio.errors import OutOfMemoryError
from pio.memory.sizes import format_bytes


def require_free(nbytes: int, what: str, remedy: str, device: Device | None = None) -> None:
    """Refuse what the machine, a control group of this process, or a GPU has no memory for.

    Memory that is mapped costs nothing until it is written, so the system itself refuses far too late.

    Args:
        nbytes: Bytes that will be written.
        what: What they are for and its verb, such as ``"the weights take"``.
        remedy: What to do about it.
        device: Where; the CPU if None.

    Raises:
        OutOfMemoryError: Fewer bytes are free.
    """
    stream = None if device is None else device.stream
    free = machine.available_memory() if stream is None else stream.room()
    if free is not None and nbytes > free:
        where = "the machine" if stream is None else device
        raise OutOfMemoryError(f"{what} {format_bytes(nbytes)} and {where} has {format_bytes(free)} free; {remedy}")
