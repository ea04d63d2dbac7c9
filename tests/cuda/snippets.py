"""Runs a few lines of PTX on arrays: lane i sees element i of each.

What ran is shown to NVIDIA's assembler too, where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from assembler import assemble
from ptx import Memory, Module

Array = np.ndarray[Any, Any]
HEAD = ".version 8.5\n.target sm_90\n.address_size 64\n"
_NAMES = "abcefgh"


def kernel(body: str, params: str = "", name: str = "kernel", before: str = "") -> str:
    """Return a text of PTX with one kernel, which has some registers of each width."""
    listed = ",\n".join(f".param {param}" for param in params.split(",")) if params else ""
    return f"""{HEAD}{before}
.visible .entry {name}({listed})
{{
    .reg .pred %p<16>;
    .reg .b16 %h<32>;
    .reg .b32 %r<64>;
    .reg .b64 %rd<64>;
    .reg .f32 %f<64>;
    .reg .f64 %fd<32>;
    {body}
    ret;
}}
"""


def compute(code: str, *inputs: Array, out: str = "u4", results: int = 1, block: int = 0) -> Any:
    """Run code that reads %a, %b, %c, %e, ... and writes %d (or %d0, %d1, ...), and return what it wrote.

    The inputs are given as arrays of one length; results have dtype out and, from predicates, dtype "?".
    """
    size = len(inputs[0]) if inputs else block
    dtype = "u4" if out == "?" else out
    width = np.dtype(dtype).itemsize
    names = ["%d"] if results == 1 else [f"%d{n}" for n in range(results)]
    lines = [".reg .b64 %at, %i, %to; .reg .b32 %n, %t; mov.u32 %t, %tid.x; mov.u32 %n, %ctaid.x;"]
    lines.append("mad.lo.u32 %t, %n, 256, %t; cvt.u64.u32 %i, %t;")
    params = [f".u64 out{n}" for n in range(results)] + [f".u64 in{n}" for n in range(len(inputs))] + [".u32 size"]
    lines += ["ld.param.u32 %n, [size]; setp.ge.u32 %p15, %t, %n; @%p15 exit;"]
    for n, (letter, values) in enumerate(zip(_NAMES, inputs, strict=False)):
        bits = 8 * values.dtype.itemsize
        lines.append(f".reg .b{max(bits, 16)} %{letter}; ld.param.u64 %at, [in{n}];")
        lines.append(f"mad.lo.u64 %at, %i, {values.dtype.itemsize}, %at; ld.global.u{bits} %{letter}, [%at];")
    for name in names:
        lines.append(f".reg {'.pred' if out == '?' else f'.b{8 * width}'} {name};")
    lines.append(code)
    for n, name in enumerate(names):
        lines.append(f"ld.param.u64 %to, [out{n}]; mad.lo.u64 %to, %i, {width}, %to;")
        value = name
        if out == "?":
            lines.append(f"selp.u32 %n, 1, 0, {name};")
            value = "%n"
        lines.append(f"st.global.b{8 * width} [%to], {value};")
    memory = Memory()
    found = [np.zeros(size, dtype) for _ in names]
    kept = [np.ascontiguousarray(values) for values in inputs]
    args = [memory.hold(x) for x in found] + [memory.hold(x, writable=False) for x in kept] + [size]
    text = kernel("\n".join(lines), ",".join(params))
    Module(text).launch("kernel", -(-size // 256), 256, args, memory=memory)
    assemble(text)
    if out == "?":
        found = [x.astype("?") for x in found]
    return found[0] if results == 1 else found


def run(
    body: str,
    arrays: Sequence[Array] = (),
    *,
    grid: int | Sequence[int] = 1,
    block: int | Sequence[int] = 32,
    shared: int = 0,
    before: str = "",
    assembles: bool = True,
    **options: Any,
) -> Module:
    """Run a kernel whose body finds the addresses of arrays in %rd0, %rd1, ...; assembles: it is assembled too."""
    memory = Memory()
    params = ",".join(f".u64 array{n}" for n in range(len(arrays)))
    loads = "\n".join(f"ld.param.u64 %rd{n}, [array{n}];" for n in range(len(arrays)))
    text = kernel(f"{loads}\n{body}", params, before=before)
    module = Module(text)
    args = [memory.hold(x) for x in arrays]
    module.launch("kernel", grid, block, args, shared, memory=memory, **options)
    if assembles:
        assemble(text)
    return module


def specials(dtype: str) -> Array:
    """Return values where operations are most often wrong: bounds, zeros, NaN, infinity, subnormal numbers."""
    if np.dtype(dtype).kind == "f":
        info = np.finfo(dtype)
        one = [0.0, 1.0, 0.5, 1.5, 3.0, 1 / 3, float(info.max), float(info.tiny), float(info.smallest_subnormal)]
        one += [float(info.tiny) / 2, float(info.eps), 1 + float(info.eps), np.inf, np.nan, 2.0**23, 2.0**31, 2.0**63]
        with np.errstate(all="ignore"):
            return np.array(one + [-x for x in one], "f8").astype(dtype)
    info = np.iinfo(dtype)
    found = {int(info.min), int(info.min) + 1, int(info.max), int(info.max) - 1, 0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 100}
    found |= {-1, -2, -7, -100} if info.min < 0 else {int(info.max) // 2, int(info.max) // 2 + 1}
    return np.array(sorted(x for x in found if info.min <= x <= info.max), dtype)


def samples(seed: int, dtype: str, count: int, parts: int) -> list[Array]:
    """Return arrays of random bits, of ordinary numbers and of all pairs of special values."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 256, (parts, count * np.dtype(dtype).itemsize), "u1").view(dtype)
    known = specials(dtype)
    if np.dtype(dtype).kind == "f":
        ordinary = (rng.standard_normal((parts, count)) * 10.0 ** rng.integers(-3, 4, (parts, count))).astype(dtype)
    else:
        ordinary = rng.integers(-50 if np.iinfo(dtype).min else 0, 50, (parts, count)).astype(dtype)
    chosen = [known[rng.integers(0, len(known), count)] for _ in range(parts)]
    if parts == 2:
        chosen = [known.repeat(len(known)), np.tile(known, len(known))]
    return [np.concatenate([bits[n], ordinary[n], chosen[n]]) for n in range(parts)]
