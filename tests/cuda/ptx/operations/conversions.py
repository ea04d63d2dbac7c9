"""cvt: between all whole numbers and floats, with rounding and saturation, and packs of small floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import formats, integers
from ..decoder import Decoder, Step, operation
from ..rounding import NAN32, flush, narrow, saturate
from ..types import Type

Array = np.ndarray[Any, Any]
_TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
_FP8 = {"e4m3x2": "e4m3", "e5m2x2": "e5m2"}


@operation("cvt")
def cvt(d: Decoder) -> Step:
    parts = [part for part in d.rest if part in ("f16x2", "bf16x2", *_FP8)]
    if parts:
        return _packs(d)
    d.need(2)
    target, source = d.take_type(), d.take_type()
    mode = d.take("rn", "rz", "rm", "rp", "rna", *_TO_INTEGER)
    ftz, sat, relu = bool(d.take("ftz")), bool(d.take("sat")), bool(d.take("relu"))
    if target.name == "tf32":
        if source.name != "f32" or mode not in ("rna", "rn") or sat or relu:
            raise d.unknown()
        return d.computed(formats.round_tf32 if mode == "rna" else _tf32_even, d.target(0, "u4"), d.source(1, "f4"))
    read = _reader(source, ftz)
    if not target.is_integer:
        if relu and target.name not in ("f16", "bf16"):
            raise d.unknown()
        write = _to_float(d, source, target, mode, ftz, sat, relu)
        return d.computed(lambda x: write(read(x)), d.target(0, target.bits), d.wide(1, source.nbytes))
    if relu or (not source.is_integer and mode not in _TO_INTEGER) or (source.is_integer and mode):
        raise d.unknown()
    slot = d.wide_target(0, target.kind, target.nbytes)
    change = _integer_to_integer(target, sat) if source.is_integer else _float_to_integer(source, target, mode)
    return d.computed(lambda x: change(read(x)), slot, d.wide(1, source.nbytes))


def _tf32_even(value: Array) -> Array:
    """Return float32 rounded to tf32, ties to even."""
    bits = value.view("u4")
    rounded = (bits + np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(value), rounded, np.where(np.isnan(value), np.uint32(0x7FFFFFFF), bits))


def _reader(kind: Type, ftz: bool) -> Callable[[Array], Array]:
    """Return what turns bits, perhaps wider ones, into numbers; 16-bit floats become doubles."""
    bits = kind.bits
    if kind.is_integer:
        return lambda x: x.astype(bits, copy=False).view(kind.dtype)
    if kind.nbytes == 2:
        return lambda x: formats.widen(x.astype("u2", copy=False), kind.kind)
    if ftz and kind.name == "f32":
        return lambda x: flush(x.view("f4"))
    return lambda x: x.view(kind.dtype)


def _integer_to_integer(target: Type, sat: bool) -> Callable[[Array], Array]:
    if not sat:
        return lambda x: x.astype(target.dtype)
    low, high = integers.bounds(target.dtype)
    return lambda x: integers.clamped(x, low, high, target.dtype)


def _float_to_integer(source: Type, target: Type, mode: str) -> Callable[[Array], Array]:
    """Return a conversion that clamps; NaN becomes 0, or 2**63 where a float64 or an integer of 64 bits takes part."""
    low, high = integers.bounds(target.dtype)
    rounding = _TO_INTEGER[mode]
    wide = source.name == "f64" or target.nbytes == 8
    nan = np.array((1 << (8 * target.nbytes - 1)) if wide else 0, target.bits).view(target.dtype)
    above = float(high) if target.nbytes < 8 else float(high + 1)  # 2**63 and 2**64 are the first that do not fit

    def change(x: Array) -> Array:
        value = rounding(x.astype("f8"))
        inside = np.where((value >= float(low)) & (value < above), value, 0.0)
        found = inside.astype(target.dtype)
        found = np.where(value >= above, np.array(high, target.dtype), found)
        found = np.where(value < float(low), np.array(low, target.dtype), found)
        return np.where(np.isnan(value), nan, found)

    return change


def _to_float(
    d: Decoder, source: Type, target: Type, mode: str, ftz: bool, sat: bool, relu: bool
) -> Callable[[Array], Array]:
    """Return a conversion from numbers to the bits of a float."""
    if target.kind not in ("f", "bf") or mode == "rna":
        raise d.unknown()
    whole = _TO_INTEGER.get(mode)
    if whole is not None and source.name != target.name:
        raise d.unknown()

    def change(x: Array) -> Array:
        if whole is not None:
            x = whole(x)
        found = _rounded(x, target, "rn" if whole is not None or not mode else mode, sat, relu)
        if ftz and target.name == "f32":
            found = flush(found.view("f4")).view("u4")
        return found

    return change


def _rounded(x: Array, target: Type, mode: str, sat: bool, relu: bool) -> Array:
    """Round numbers to the bits of a float."""
    error: Array | float = 0.0
    if x.dtype == np.dtype("f4") and target.is_half and mode == "rn" and not sat and not relu:
        return formats.nearest16(x, target.kind)
    if x.dtype.kind in "iu":
        x, error = _whole_as_double(x, target, mode)
    if target.name == "f64":
        found = x.astype("f8") if not sat else saturate(x.astype("f8"))
        return found.view("u8")
    if target.name == "f32" and x.dtype == np.dtype("f4"):
        found = saturate(x) if sat else x
        return np.where(np.isnan(found), NAN32, found).view("u4")
    value = x.astype("f8")
    if sat:
        value, error = saturate(value), 0.0
    if relu:
        value = np.where(value < 0, 0.0, value)
    if target.name == "f32":
        found = narrow(value, error, mode)
        return np.where(np.isnan(found), NAN32, found).view("u4")
    return formats.narrow16(value, error, target.kind, mode)


def _whole_as_double(x: Array, target: Type, mode: str) -> tuple[Array, Array | float]:
    """Return whole numbers as doubles, and what is missing from those of 64 bits."""
    value = x.astype("f8")
    if x.dtype.itemsize < 8 or (target.name == "f64" and mode == "rn"):
        return value, 0.0
    error = np.zeros(len(x))
    large = np.flatnonzero(np.abs(value) >= 2.0**53)
    error[large] = [n - int(v) for n, v in zip(x[large].tolist(), value[large].tolist(), strict=True)]
    if target.name == "f64" and mode != "rn":
        toward = {"rm": error < 0, "rp": error > 0}.get(mode)
        if toward is None:
            toward = np.where(value > 0, error < 0, error > 0)
            return np.where(toward, np.nextafter(value, 0.0), value), error
        return np.where(toward, np.nextafter(value, -np.inf if mode == "rm" else np.inf), value), error
    return value, error


def _packs(d: Decoder) -> Step:
    """Decode conversions of two values at once: the first source gives the upper half."""
    mode = d.take("rn", "rz")
    sat, relu = bool(d.take("satfinite")), bool(d.take("relu"))
    target = d.take_type()
    source = d.take_type()
    if target.name in _FP8 and source.name in ("f32", "f16x2") and mode == "rn" and sat:
        return _to_fp8(d, _FP8[target.name], source, relu)
    if source.name in _FP8 and target.name == "f16x2" and mode == "rn" and not sat:
        d.need(2)
        table = formats.narrow16(formats.FP8[_FP8[source.name]], 0.0, "f")

        def widened(x: Array) -> Array:
            bits = table[x.view("u1")]
            return (np.where(bits & 0x7FFF > 0x7C00, 0x7FFF, bits).astype("u2") if relu is False else _relu(bits)).view(
                "u4"
            )

        return d.computed(widened, d.target(0, "u4"), d.source(1, "u2"))
    if target.name not in ("f16x2", "bf16x2") or source.name != "f32" or not mode or sat:
        raise d.unknown()
    d.need(3)
    kind = target.kind.removesuffix("x2")

    def nearest(a: Array, b: Array) -> Array:
        both = np.empty((len(a), 2), "u2")
        both[:, 0], both[:, 1] = formats.nearest16(b, kind), formats.nearest16(a, kind)
        return both.view("u4")[:, 0]

    def packed(a: Array, b: Array) -> Array:
        both = np.empty((len(a), 2), "u2")
        for column, x in ((0, b), (1, a)):
            value = x.astype("f8")
            both[:, column] = formats.narrow16(np.where(value < 0, 0.0, value) if relu else value, 0.0, kind, mode)
        return both.view("u4")[:, 0]

    function = nearest if mode == "rn" and not relu else packed
    return d.computed(function, d.target(0, "u4"), d.source(1, "f4"), d.source(2, "f4"))


def _relu(bits: Array) -> Array:
    return np.where((bits & 0x8000 != 0) & (bits & 0x7FFF <= 0x7C00), 0, bits).astype("u2")


def _to_fp8(d: Decoder, name: str, source: Type, relu: bool) -> Step:
    d.need(2 if source.name == "f16x2" else 3)

    def low(value: Array) -> Array:
        return formats.to_fp8(np.where(value < 0, 0.0, value) if relu else value, name)

    def packed(a: Array, b: Array | None = None) -> Array:
        both = np.empty((len(a), 2), "u1")
        if b is None:
            halves = formats.widen(a.view("u2"), "f").reshape(-1, 2)
            both[:, 0], both[:, 1] = low(halves[:, 0]), low(halves[:, 1])
        else:
            both[:, 0], both[:, 1] = low(b.astype("f8")), low(a.astype("f8"))
        return both.view("u2")[:, 0]

    dtype = "u4" if source.name == "f16x2" else "f4"
    return d.computed(packed, d.target(0, "u2"), *[d.source(n, dtype) for n in range(1, len(d.operands))])
