"""What goes wrong in a text of PTX or while it runs; every error names the kernel and the line."""

from __future__ import annotations


class PtxError(Exception):
    """Base of all errors of this package."""


class PtxSyntaxError(PtxError):
    """A text that is no PTX, or names what is not declared."""


class UnknownInstruction(PtxError):
    """An opcode, modifier, type or special register that is not implemented, by its full name."""


class LaunchError(PtxError):
    """Arguments, a grid or a block that the kernel does not take."""


class Fault(PtxError):
    """What a kernel did wrong while it ran: a memory access, a barrier, a loop without end.

    An operation raises it with the number of a lane, counted among the active ones or (of_batch) among all of the
    batch; the interpreter raises a new one of the same type that adds kernel, block, thread and line.
    """

    def __init__(self, message: str, lane: int | None = None) -> None:
        super().__init__(message)
        self.lane = lane
        self.of_batch = False


class MemoryFault(Fault):
    """An access out of bounds, not aligned, of memory that may not be written or was never written."""


class RaceFault(Fault):
    """Two warps (or blocks) that touch the same bytes, one of them writing, with no barrier between."""


class BarrierFault(Fault):
    """Lanes that wait for others that never come."""


class LimitFault(Fault):
    """More instructions than the limit allows."""
