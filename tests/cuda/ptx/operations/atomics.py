"""atom and red: lanes go one after another, in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import floats
from ..access import WINDOWS, Access
from ..decoder import Decoder, Step, Values, operation
from ..lanes import Lanes
from ..rounding import canonical, flush
from ..types import Type
from .loads import space_of

Array = np.ndarray[Any, Any]
_SEMANTICS = ("relaxed", "acquire", "release", "acq_rel")
_NAMES = ("add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec")


def _combination(d: Decoder, name: str, kind: Type, space: str) -> tuple[Callable[..., Any], str]:
    """Return what makes the new value of the old one and the operands, and the dtype in which it does."""
    if name == "exch":
        return (lambda old, b: b), kind.bits
    if name == "cas":
        return (lambda old, b, c: np.where(old == b, c, old)), kind.bits
    if name in ("and", "or", "xor") and kind.kind == "b":
        return {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[name], kind.bits
    if name in ("add", "min", "max") and kind.kind in ("u", "s"):
        return {"add": np.add, "min": np.minimum, "max": np.maximum}[name], kind.dtype
    if name == "inc" and kind.name == "u32":
        return (lambda old, b: np.where(old >= b, np.uint32(0), old + np.uint32(1))), "u4"
    if name == "dec" and kind.name == "u32":
        return (lambda old, b: np.where((old == 0) | (old > b), b, old - np.uint32(1))), "u4"
    if name == "add" and kind.name == "f32":
        # In global memory subnormal numbers are zero.
        return (_add_flushed if space == "global" else _add_floats), "f4"
    if name == "add" and kind.name == "f64":
        return np.add, "f8"
    if name in ("add", "min", "max") and kind.kind in ("f", "bf", "fx2", "bfx2") and kind.bits != "u8":
        if name == "add" and not d.take("noftz"):
            raise d.unknown()
        if kind.name == "f32":
            raise d.unknown()
        function = {"add": np.add, "min": floats.minimum, "max": floats.maximum}[name]
        one = floats.half(function, kind, False, False, False)
        return (lambda old, b: one(np.atleast_1d(old), np.atleast_1d(b)).reshape(np.shape(old))), kind.bits
    raise d.unknown()


def _add_floats(old: Array, b: Array) -> Array:
    return canonical(np.atleast_1d(old + b)).reshape(np.shape(old))


def _add_flushed(old: Array, b: Array) -> Array:
    return canonical(flush(flush(np.atleast_1d(old)) + flush(np.atleast_1d(b)))).reshape(np.shape(old))


@operation("atom", "red")
def atom(d: Decoder) -> Step:
    returns = d.name == "atom"
    first = 1 if returns else 0
    releases = d.take(*_SEMANTICS) in ("release", "acq_rel")
    d.take("cta", "cluster", "gpu", "sys")
    space = space_of(d, first)
    name = d.take(*_NAMES)
    kind = d.take_type()
    if not name or space not in ("global", "shared", "generic"):
        raise d.unknown()
    d.need(first + (3 if name == "cas" else 2))
    combine, dtype = _combination(d, name, kind, space)
    load = Access(space, kind.nbytes, writes=True, ordinary=False)
    where = d.address(first)
    sources = [d.source(n, dtype) for n in range(first + 1, len(d.operands))]
    target = d.target(0, dtype) if returns else -1

    def action(v: Values, s: Lanes) -> None:
        if releases:
            s.publish()
        address, values = where(v, s), [s.active(v[slot]) for slot in sources]
        old = load.load(s, address, s.lanes).view(dtype)
        key = address
        if space != "global":  # shared memory is another one in each block
            own = np.uint64(1 << 40) * s.active(s.block_of).astype("u8")
            window = np.uint64(0 if space == "shared" else WINDOWS["shared"] >> 56)
            key = np.where(address >> np.uint64(56) == window, address + own, address)
        if len(np.unique(key)) == len(key):
            new = np.asarray(combine(old, *values), dtype)
            load.store(s, address, new.view(kind.bits), s.lanes)
        else:
            old = _one_by_one(combine, key, old, values)
            last = dict(zip(key.tolist(), range(len(key)), strict=True))
            ends = np.array(list(last.values()))
            new = np.asarray(combine(old[ends], *[value[ends] for value in values]), dtype)
            lanes = ends if s.lanes is None else s.lanes[ends]
            load.store(s, address[ends], new.view(kind.bits), lanes)
        if returns:
            if s.lanes is None:
                v[target][...] = old
            else:
                v[target][s.lanes] = old

    return d.same(action)


def _one_by_one(combine: Callable[..., Any], keys: Array, old: Array, values: list[Array]) -> Array:
    """Return what each lane finds where lanes before it have been."""
    found = old.copy()
    now: dict[int, Any] = {}
    for lane, key in enumerate(keys.tolist()):
        if key in now:
            found[lane] = now[key]
        now[key] = combine(found[lane], *[value[lane] for value in values])
    return found
