"""The functions of NVIDIA's library, as numba-cuda compiles them: within the errors that NVIDIA states.

They are long, and made of nearly everything: fused products, carries, calls, tables, local memory.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from compiled import Kernel, cuda, ir, load_f32, load_i32, store_f32, store_i32, types
from compiled import _load as load_of
from compiled import _store as store_of

I64, F32, F64 = types.int64, types.float32, types.float64
load_f64, store_f64 = load_of(ir.DoubleType(), F64), store_of(ir.DoubleType(), F64)
# Errors in units in the last place, of float32 and float64, from the CUDA C++ Programming Guide.
FUNCTIONS = {
    "exp": (np.exp, 2, 1),
    "exp2": (np.exp2, 2, 1),
    "exp10": (lambda x: np.float64(10) ** x, 2, 1),
    "expm1": (np.expm1, 1, 1),
    "log": (np.log, 1, 1),
    "log2": (np.log2, 1, 1),
    "log10": (np.log10, 2, 1),
    "log1p": (np.log1p, 1, 1),
    "sqrt": (np.sqrt, 0, 0),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 2, 1),
    "cbrt": (np.cbrt, 1, 1),
    "sin": (np.sin, 2, 2),
    "cos": (np.cos, 2, 2),
    "tan": (np.tan, 4, 2),
    "asin": (np.arcsin, 2, 2),
    "acos": (np.arccos, 2, 2),
    "atan": (np.arctan, 2, 2),
    "sinh": (np.sinh, 3, 2),
    "cosh": (np.cosh, 2, 1),
    "tanh": (np.tanh, 2, 1),
    "asinh": (np.arcsinh, 3, 3),
    "acosh": (np.arccosh, 4, 3),
    "atanh": (np.arctanh, 3, 2),
    "erf": (np.vectorize(math.erf), 2, 2),
    "erfc": (np.vectorize(math.erfc), 4, 5),
    "floor": (np.floor, 0, 0),
    "ceil": (np.ceil, 0, 0),
    "trunc": (np.trunc, 0, 0),
    "rint": (np.rint, 0, 0),
    "round": (lambda x: np.where(np.abs(x) < 2**52, np.copysign(np.floor(np.abs(x) + 0.5), x), x), 0, 0),
    "fabs": (np.abs, 0, 0),
}


def made(function, dtype, **options):
    """Return a kernel that applies a function to each element."""
    load, store, step = (load_f32, store_f32, 4) if dtype == "f4" else (load_f64, store_f64, 8)

    def apply(y, x, n):
        i = cuda.grid(1)
        if i < n:
            store(y + step * I64(i), function(load(x + step * I64(i))))

    return Kernel(apply, I64, I64, I64, **options)


def values(dtype):
    rng = np.random.default_rng(1)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 2.5, -3.5, 88.0, -104.0, 700.0]
    edges += [1e-40, 1e30] if dtype == "f4" else [1e-310, 1e300]
    parts = [rng.standard_normal(300) * 3, rng.uniform(-1, 1, 300), rng.uniform(-1e5, 1e5, 40), edges]
    return np.concatenate(parts).astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, dtype):
    reference, single, double = FUNCTIONS[name]
    kernel = made(getattr(cuda.libdevice, f"{name}f" if dtype == "f4" else name), dtype)
    x = values(dtype)
    y = np.zeros_like(x)
    kernel(-(-len(x) // 96), 96, [y, x, len(x)])
    with np.errstate(all="ignore"):
        exact = reference(x.astype("f8"))
        expected = exact.astype(dtype)
        same = (y == expected) | (np.isnan(y) & np.isnan(expected))
        units = np.abs(y.astype("f8") - exact) / np.spacing(np.abs(expected)).astype("f8")
    # NumPy's own float64 is no better than a unit.
    worst = int(np.argmax(np.where(same, 0, np.where(np.isnan(units), np.inf, units))))
    assert same[worst] or units[worst] <= (single + 0.5 if dtype == "f4" else double + (1 if double else 0)), (
        f"{name}({x[worst]!r}) = {y[worst]!r}, {expected[worst]!r} expected: {units[worst]} units"
    )


def test_fast_functions_flush_and_approximate():
    def fast(x):
        return cuda.libdevice.expf(x) / (F32(1) + cuda.libdevice.sqrtf(x * x)) + cuda.libdevice.logf(x * x + F32(1))

    inner = cuda.jit(device=True)(fast)
    kernel = made(inner, "f4", fastmath=True)
    assert re.search(r"\.approx\.ftz\.f32", kernel.text)
    x = np.random.default_rng(2).standard_normal(200).astype("f4")
    y = np.zeros_like(x)
    kernel(2, 128, [y, x, 200])
    wide = x.astype("f8")
    np.testing.assert_allclose(y, np.exp(wide) / (1 + np.abs(wide)) + np.log(wide * wide + 1), rtol=3e-6)


def whole(y, x, n):
    """Quotients, remainders and powers of signed numbers, as Python has them, over a local array."""
    i = cuda.grid(1)
    if i >= n:
        return
    v = load_i32(x + 4 * I64(i))
    own = cuda.local.array(8, types.int32)
    for k in range(8):
        own[k] = v // (k + 1) + v % (k + 3)
    total = 0
    for k in range(8):
        total = total * 3 + own[(k * 5 + i) % 8]
    store_i32(y + 4 * I64(i), total)


def test_whole_numbers_and_local_arrays():
    kernel = Kernel(whole, I64, I64, I64)
    x = np.random.default_rng(3).integers(-1000, 1000, 77).astype("i4")
    y = np.zeros_like(x)
    kernel(3, 32, [y, x, 77])
    for i, v in enumerate(x.tolist()):
        own = [v // (k + 1) + v % (k + 3) for k in range(8)]
        total = 0
        for k in range(8):
            total = total * 3 + own[(k * 5 + i) % 8]
        assert y[i] == (total + 2**31) % 2**32 - 2**31
