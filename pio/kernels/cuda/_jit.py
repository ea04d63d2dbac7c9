"""How kernels for GPUs are declared: functions of addresses and sizes, compiled for an architecture on demand."""

# numba-cuda comes without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

from pio.kernels._image import Name
from pio.kernels._jit import name_of, parameters
from pio.kernels._per_dtype import PerDtype, specialise
from pio.kernels.cuda import _compiler
from pio.kernels.cuda._variants import VARIANTS, ByRows

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kernel is launched, whatever there is to do.

    Attributes:
        block: Threads of a block.
        blocks: Of a multiprocessor; the grid is that many times its number of multiprocessors.
        shared: Bytes of shared memory of a block.
    """

    block: int = 256
    blocks: int = 4
    shared: int = 0


class DeviceFunction:
    """A function that kernels call; it is compiled as part of them.

    Attributes:
        py_func: The function.
    """

    def __init__(self, fn: Callable[..., Any], inline: bool = False) -> None:
        self.py_func = fn
        self._inline = inline

    def __call__(self, *_: Any) -> Any:
        """Say that Python cannot call it; kernels call what stands for it."""
        raise TypeError(f"{self.py_func.__name__} is a function of kernels for GPUs, which Python cannot call")

    @cached_property
    def dispatcher(self) -> Any:
        """What stands for it in a kernel."""
        return _compiler.device_dispatcher(_resolved(self.py_func), self._inline)


class CudaKernel:
    """A kernel for GPUs.

    Attributes:
        name: How the kernel is known.
        shape: How it is launched.
        letters: One for each parameter: ``q`` for integers, ``d`` for floats.
    """

    def __init__(self, fn: Callable[..., None], shape: Shape) -> None:
        self.name: Name = name_of(fn)
        self.shape = shape
        self.letters: str = parameters(fn)
        self.py_func = fn
        self.__doc__, self.__module__ = fn.__doc__, fn.__module__

    @cached_property
    def llvm(self) -> tuple[str, ...]:
        """Its LLVM code, which is the same for all architectures."""
        return _compiler.to_llvm(_resolved(self.py_func), self.letters, self.shape.block, self.shape.blocks)

    def ptx(self, architecture: str) -> tuple[str, str]:
        """Return its PTX for an architecture such as ``sm_90a``, and the name of the entry."""
        return _compiler.to_ptx(self.llvm, architecture)


class Variants(NamedTuple):
    """What stands for a kernel that is two.

    Attributes:
        by: How a launch chooses.
        kernels: Both, of few rows and of many.
    """

    by: ByRows
    kernels: tuple[CudaKernel, CudaKernel]

    def taken(self, *values: Any) -> list[CudaKernel]:
        """Return those that a launch with these arguments takes, in order."""
        names = self.by.taken(values)
        return [kernel for name, kernel in zip(self.by.names, self.kernels, strict=True) if name in names]


def by_rows(name: str, few: PerDtype[CudaKernel], many: PerDtype[CudaKernel]) -> PerDtype[Variants]:
    """Declare what stands for two kernels, for each element type, by its name in ``_variants``."""
    by = VARIANTS[f"{__package__}.{name}"]
    return PerDtype(lambda dtype: Variants(by, (few[dtype], many[dtype])))


def device_function(fn: F) -> F:
    """Declare a function that kernels call."""
    return DeviceFunction(fn)  # pyright: ignore[reportReturnType]


def inlined_device_function(fn: F) -> F:
    """Declare a function that is large, and yet must not be called: it has no registers beside the kernel's.

    Others are inlined too, as far as each architecture's compiler thinks that worth it.
    """
    return DeviceFunction(fn, inline=True)  # pyright: ignore[reportReturnType]


def device_function_per_dtype(fn: F) -> PerDtype[F]:
    """Declare such a function for each element type."""
    return PerDtype(lambda dtype: device_function(specialise(fn, dtype)))


def cuda_kernel(fn: Any = None, *, block: int = 256, blocks: int = 4, shared: int = 0) -> Any:
    """Declare a kernel; every parameter is annotated int (an address, a size, a flag) or float.

    Args:
        fn: The kernel. Its blocks take work in turn: ``range(block_index(), work, grid_size())``.
        block: Threads of a block.
        blocks: Of a multiprocessor.
        shared: Bytes of shared memory of a block, which ``ptx.shared_memory`` gives.
    """
    if fn is None:
        return partial(cuda_kernel, block=block, blocks=blocks, shared=shared)
    return CudaKernel(fn, Shape(block, blocks, shared))


def cuda_kernel_per_dtype(fn: Any = None, *, block: int = 256, blocks: int = 4, shared: int = 0) -> Any:
    """Declare a kernel for each element type: every ``PerDtype`` that it names stands for the member of that type."""
    if fn is None:
        return partial(cuda_kernel_per_dtype, block=block, blocks=blocks, shared=shared)
    return PerDtype(lambda dtype: cuda_kernel(specialise(fn, dtype), block=block, blocks=blocks, shared=shared))


def _resolved(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose names of device functions stand for what kernels call in their place."""
    scope = dict(fn.__globals__)
    for name in fn.__code__.co_names:
        if isinstance(value := scope.get(name), DeviceFunction):
            scope[name] = value.dispatcher
    made = FunctionType(fn.__code__, scope, fn.__name__, fn.__defaults__, fn.__closure__)
    made.__module__, made.__qualname__, made.__annotations__ = fn.__module__, fn.__qualname__, fn.__annotations__
    return made
