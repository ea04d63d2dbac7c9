"""What is asked of numba-cuda: LLVM code of a function, PTX of that, and the machine code that NVIDIA's linker makes.

Nothing here needs a GPU or a driver. LLVM code is the same for all architectures, so Numba, which takes most of the
time, works once for each kernel, whatever it is compiled for.
"""

# numba-cuda and cuda-core come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from numba import float64, int64, types

_numpy: Any = sys.modules["numpy"]  # Numba's, of which numba-cuda 0.30 asks what NumPy 2.5 has no more
if not hasattr(_numpy, "row_stack"):
    _numpy.row_stack = _numpy.vstack

# ruff: noqa: E402  # behind that
from cuda.core import Linker, LinkerOptions, ObjectCode
from numba import cuda
from numba.cuda import compiler as _numba_compiler
from numba.cuda import dispatcher as _dispatcher
from numba.cuda.core.compiler_lock import global_compiler_lock
from numba.cuda.cudadrv import nvrtc, nvvm

ARCHITECTURES: Final = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a")
LEAST: Final = (8, 0)  # what LLVM code is made for; it differs for older ones alone, and for tanh with fastmath
TYPES: Final = {"q": int64, "d": float64}  # of parameters, by their letters
_ARCHITECTURE: Final = re.compile(r"sm_(\d+)(\d)(a?)")
_ENTRY: Final = re.compile(r"\.visible \.entry (\w+)\(")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a kernel takes of a multiprocessor.

    Attributes:
        registers: Of a thread.
        spilled: Bytes of registers that a thread keeps in memory, stores and loads together.
        stack: Bytes of a thread's own memory.
        shared: Bytes of shared memory that do not depend on the launch.
    """

    registers: int
    spilled: int
    stack: int
    shared: int


def device_dispatcher(fn: Callable[..., Any], inline: bool) -> Any:
    """Return what a kernel calls in place of a function; with ``inline`` it is part of the kernel in any case."""
    return cuda.jit(device=True, forceinline=inline)(fn)


def to_llvm(fn: Callable[..., Any], letters: str, block: int, blocks: int) -> tuple[str, ...]:
    """Compile a kernel as far as that is the same for all architectures.

    Args:
        fn: Its function; takes integers and floats, returns nothing.
        letters: A letter for each parameter, see TYPES.
        block: Threads of a block, at most.
        blocks: Of a multiprocessor at once, which bounds registers.

    Returns:
        Modules of LLVM code: the kernel's, and those of all functions that it calls.
    """
    signature = types.void(*[TYPES[letter] for letter in letters])
    with global_compiler_lock, _no_device():
        library, _ = _numba_compiler._compile_pyfunc_with_fixup(
            fn,
            signature,
            device=False,
            abi="numba",
            cc=LEAST,
            launch_bounds=(block, blocks),
            fastmath=False,
        )
        modules = {id(module): module for module in library.modules}  # one that two functions call is there twice
        return tuple(str(module) for module in modules.values())


def to_ptx(llvm: tuple[str, ...], architecture: str) -> tuple[str, str]:
    """Make PTX of modules of LLVM code for an architecture; return it, and the name of the entry in it."""
    arch = nvrtc.get_arch_option(*_capability(architecture))
    text = nvvm.compile_ir(llvm, opt=3, arch=arch).decode().strip("\0\n ")
    return text, _ENTRY.findall(text)[0]


def to_cubin(ptx: str, architecture: str) -> tuple[bytes, Resources]:
    """Make machine code of PTX, and say what it takes."""
    options = LinkerOptions(arch=architecture, ptxas_options=["-v"], optimization_level=3)
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    made = linker.link("cubin")
    return bytes(made.code), _resources(linker.get_info_log())


def _capability(architecture: str) -> tuple[int, int] | tuple[int, int, str]:
    """Return an architecture as numba-cuda takes it: ``sm_90a`` is (9, 0, "a").

    Raises:
        ValueError: It is none.
    """
    found = _ARCHITECTURE.fullmatch(architecture)
    if found is None:
        raise ValueError(f"{architecture!r} is no architecture of a GPU, such as {', '.join(ARCHITECTURES)}")
    major, minor, own = found.groups()
    return (int(major), int(minor), own) if own else (int(major), int(minor))


def _resources(log: str) -> Resources:
    def number(pattern: str) -> int:
        return sum(int(n) for n in re.findall(pattern, log))

    return Resources(
        registers=number(r"Used (\d+) registers"),
        spilled=number(r"(\d+) bytes spill (?:stores|loads)"),
        stack=number(r"(\d+) bytes stack frame"),
        shared=number(r"(\d+) bytes smem"),
    )


@contextmanager
def _no_device() -> Generator[None]:
    """Let numba-cuda not look for a GPU where a device function is compiled."""
    before = _dispatcher.get_current_device
    _dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=LEAST)
    try:
        yield
    finally:
        _dispatcher.get_current_device = before
