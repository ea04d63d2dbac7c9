"""What other packages write kernels with: the decorators, sixteen-lane primitives, and the checks of a launcher.

Nothing else of ``pio.kernels`` is meant for them. docs/adding-a-kernel.md shows a kernel in a package of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pio.errors import ConfigError
from pio.kernels import _numba as _numba
from pio.kernels import parallel
from pio.kernels._jit import kernel as kernel
from pio.kernels._jit import kernel_per_dtype as kernel_per_dtype
from pio.kernels._processor import LANES as LANES
from pio.kernels.exponential import exp as exp
from pio.kernels.simd import fma as fma
from pio.kernels.simd import get_f32 as get_f32
from pio.kernels.simd import get_i32 as get_i32
from pio.kernels.simd import get_i64 as get_i64
from pio.kernels.simd import itemsize as itemsize
from pio.kernels.simd import keep as keep
from pio.kernels.simd import load as load
from pio.kernels.simd import load_f32 as load_f32
from pio.kernels.simd import load_part as load_part
from pio.kernels.simd import load_part_f32 as load_part_f32
from pio.kernels.simd import max_lanes as max_lanes
from pio.kernels.simd import maximum as maximum
from pio.kernels.simd import minimum as minimum
from pio.kernels.simd import put_f32 as put_f32
from pio.kernels.simd import put_i32 as put_i32
from pio.kernels.simd import put_i64 as put_i64
from pio.kernels.simd import splat as splat
from pio.kernels.simd import store as store
from pio.kernels.simd import store_f32 as store_f32
from pio.kernels.simd import store_part as store_part
from pio.kernels.simd import store_part_f32 as store_part_f32
from pio.kernels.simd import sum_lanes as sum_lanes
from pio.ops._check import check as check
from pio.ops._check import check_float as check_float
from pio.ops._check import split as split
from pio.ops._overlap import check_apart as check_apart
from pio.ops._overlap import check_same_or_apart as check_same_or_apart
from pio.ops._tensors import check_writable as check_writable
from pio.ops._tensors import result as result

T = TypeVar("T")


def parallel_kernel(fn: Callable[..., None] | None = None, *, parts_per_thread: int = 1) -> Any:
    """Compile a kernel that does one part of its work, and run all parts in pio's pool of threads when it is called.

    The last two parameters are ``part`` and ``parts``; a call gives in their place how many threads may take part.

    Args:
        fn: The kernel; every parameter is annotated ``int`` or ``float``, and it returns nothing.
        parts_per_thread: Into how many parts to cut what one thread does; more let a slow thread do less.

    Raises:
        ConfigError: A parameter has no such annotation, or the last two are others.
    """
    if fn is None:
        return partial(parallel_kernel, parts_per_thread=parts_per_thread)
    return _made(lambda: parallel.parallel_kernel(fn, parts_per_thread=parts_per_thread))


def parallel_kernel_per_dtype(fn: Callable[..., None] | None = None, *, parts_per_thread: int = 1) -> Any:
    """As ``parallel_kernel``, one for each element type of ``load``, ``store`` and ``itemsize`` in it."""
    if fn is None:
        return partial(parallel_kernel_per_dtype, parts_per_thread=parts_per_thread)
    _made(lambda: parallel.parallel_kernel(fn))  # finds now what is wrong with it
    return parallel.parallel_kernel_per_dtype(fn, parts_per_thread=parts_per_thread)


def _made(make: Callable[[], T]) -> T:
    try:
        return make()
    except TypeError as error:
        raise ConfigError(f"{error}; correct the kernel") from None
