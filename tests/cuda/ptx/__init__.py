"""An interpreter of PTX, NVIDIA's assembly language, on NumPy: it runs CUDA kernels where there is no GPU.

``Module`` parses what a compiler emitted; ``Module.launch`` runs a kernel on the memory that a ``Memory`` knows, and
raises where the kernel does what it must not: accesses out of bounds, misaligned or of memory that nobody wrote, races,
barriers that not all lanes reach, loops without end. What is not implemented fails by its name.

It shows what a kernel computes. It can't show how fast it is, what the weak order of memory does, and the last bits
that NVIDIA does not define: of .approx functions, of the sums in mma, and of ``mul`` and ``add`` without ``.rn``, which
the assembler may fuse.
"""

from .errors import (
    BarrierFault,
    Fault,
    LaunchError,
    LimitFault,
    MemoryFault,
    PtxError,
    PtxSyntaxError,
    RaceFault,
    UnknownInstruction,
)
from .memory import Memory
from .module import Module

__all__ = [
    "BarrierFault",
    "Fault",
    "LaunchError",
    "LimitFault",
    "Memory",
    "MemoryFault",
    "Module",
    "PtxError",
    "PtxSyntaxError",
    "RaceFault",
    "UnknownInstruction",
]
