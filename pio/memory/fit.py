"""Whether what is to be made fits into the memory of the machine: asked in one place, and refused in one sentence."""

from __future__ import annotations

from pio import machine
from pio.errors import OutOfMemoryError
from pio.memory.sizes import format_bytes


def require_free(nbytes: int, what: str, remedy: str) -> None:
    """Refuse what the machine, or a control group of this process, has no memory for.

    Memory that is mapped costs nothing until it is written, so the system itself refuses far too late.

    Args:
        nbytes: Bytes that will be written.
        what: What they are for and its verb, such as ``"the weights take"``.
        remedy: What to do about it.

    Raises:
        OutOfMemoryError: Fewer bytes are free.
    """
    free = machine.available_memory()
    if free is not None and nbytes > free:
        raise OutOfMemoryError(f"{what} {format_bytes(nbytes)} and the machine has {format_bytes(free)} free; {remedy}")
