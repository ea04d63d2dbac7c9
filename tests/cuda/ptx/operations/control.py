"""Branches, calls, exits, barriers of a block, fences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..access import Access
from ..barriers import release, wait
from ..decoder import RESCHEDULE, Decoder, Step, Values, operation
from ..errors import Fault, PtxSyntaxError
from ..lanes import EXITED, PARKED, RUNS, Lanes
from ..operands import Address, Group, Operand, Register, Sink, Symbol, Variable
from ..registers import dtype_of
from . import warps

Array = np.ndarray[Any, Any]
Take = Callable[[Values, Lanes, Array], None]


@operation("bra")
def bra(d: Decoder) -> Step:
    d.need(1)
    d.take("uni")
    target, pc, guard = d.program.label(d, d.operands[0]), d.pc, d.instruction.guard
    if guard is None:
        return d.same(lambda v, s: target)
    slot, negated = d.predicate(guard)

    def action(v: Values, s: Lanes) -> int | None:
        taken = ~v[slot] if negated else v[slot]
        if s.count != s.size:
            taken = taken & s.mask
        count = np.count_nonzero(taken)
        if count == 0:
            return None
        if count == s.count:
            return target
        s.pcs[s.mask] = pc + 1
        s.pcs[taken] = target
        return RESCHEDULE

    return d.same(action)


@operation("brx")
def brx(d: Decoder) -> Step:
    d.need(2)
    if not d.take("idx"):
        raise d.unknown()
    d.take("uni")
    table = np.array(d.program.table(d, d.operands[1]))
    slot = d.source(0, "u4")

    def action(v: Values, s: Lanes) -> int:
        index = s.active(v[slot])
        beyond = index >= len(table)
        if beyond.any():
            lane = int(beyond.argmax())
            raise Fault(f"branches to number {int(index[lane])} of {len(table)}", lane)
        s.pcs[s.mask] = table[index]
        return RESCHEDULE

    return d.same(action, control=True)


def leave(s: Lanes) -> int:
    """End the active lanes; those that were waiting for them as partners of a warp look again."""
    s.status[s.mask] = EXITED
    s.status[s.status == PARKED] = RUNS
    return RESCHEDULE


@operation("exit")
def exit_(d: Decoder) -> Step:
    d.need(0)
    return d.same(lambda v, s: leave(s), control=True)


@operation("ret")
def ret(d: Decoder) -> Step:
    d.need(0)
    d.take("uni")
    name = d.function
    if name == d.program.entry.name:
        return d.same(lambda v, s: leave(s), control=True)

    results = d.program.results

    def action(v: Values, s: Lanes) -> int:
        lanes = np.flatnonzero(s.mask)
        backs = s.returns[name][lanes]
        for back in np.unique(backs).tolist():
            for take in results[back - 1]:
                take(v, s, lanes[backs == back])
        s.pcs[lanes] = backs
        return RESCHEDULE

    return d.same(action, control=True)


@operation("trap", "brkpt")
def trap(d: Decoder) -> Step:
    def action(v: Values, s: Lanes) -> None:
        raise Fault("traps", 0)

    return d.same(action, control=True)


@operation("call")
def call(d: Decoder) -> Step:
    """Decode a call: arguments are copied into the parameters of the function, results back when it returns."""
    d.take("uni")
    first, rest = d.operands[0], d.operands
    results, rest = (first.items, rest[1:]) if isinstance(first, Group) else ((), rest)
    name, last = rest[0], rest[1] if len(rest) > 1 else None
    arguments = last.items if isinstance(last, Group) else ()
    if not isinstance(name, Symbol):
        raise d.unknown()
    function = d.program.module.functions.get(name.name)
    if function is None:
        outside = name.name

        def refuse(v: Values, s: Lanes) -> None:
            raise Fault(f"calls {outside}, which has no body here", 0)

        return d.same(refuse, control=True)
    if len(arguments) != len(function.params) or len(results) != len(function.returns):
        raise PtxSyntaxError(f"{function.name} takes {len(function.params)} and returns {len(function.returns)} values")
    copies = [_pass(d, argument, param) for argument, param in zip(arguments, function.params, strict=True)]
    target, pc = d.program.starts[function.name], d.pc
    takes = [(function.returns[n], result) for n, result in enumerate(results)]
    d.program.results[pc] = [_take(d, variable, result) for variable, result in takes]

    def action(v: Values, s: Lanes) -> int:
        for copy in copies:
            copy(v, s)
        back = s.returns.setdefault(function.name, np.zeros(s.size, "i8"))
        back[s.mask] = pc + 1
        return target

    return d.same(action, control=True)


def _pass(d: Decoder, argument: Operand, param: Variable) -> Callable[[Values, Lanes], None]:
    """Return what copies an argument, a register or a variable of this call, into a parameter."""
    start = d.program.layout.frame.offsets[param.name]
    if isinstance(argument, Address):
        argument = argument.base or argument
    if isinstance(argument, Variable):
        first, count = d.program.layout.frame.offsets[argument.name], min(argument.nbytes, param.nbytes)

        def copy(v: Values, s: Lanes) -> None:
            s.spaces["frame"].copy(first, start, count, s.lanes)

        return copy
    slot = d.source(argument, dtype_of(argument) if isinstance(argument, Register) else param.type.bits)

    def write(v: Values, s: Lanes) -> None:
        s.spaces["frame"].place(start, s.active(v[slot]), s.lanes)

    return write


def _take(d: Decoder, variable: Variable, result: Operand) -> Take:
    """Return what copies a result to where the call wants it, for lanes that come back."""
    start = d.program.layout.frame.offsets[variable.name]
    if isinstance(result, Address):
        result = result.base or result
    if isinstance(result, Variable):
        first = d.program.layout.frame.offsets[result.name]
        return lambda v, s, lanes: s.spaces["frame"].copy(start, first, variable.nbytes, lanes)
    if isinstance(result, Sink):
        return lambda v, s, lanes: None
    access = Access("frame", variable.type.nbytes, writes=False)
    slot, offset = d.target(result, variable.type.bits), np.array(start, "u8")

    def take(v: Values, s: Lanes, lanes: Array) -> None:
        v[slot][lanes] = access.load(s, np.broadcast_to(offset, len(lanes)), lanes)

    return take


# Barriers

_BARRIERS = ("sync", "arrive", "red")


@operation("bar", "barrier")
def bar(d: Decoder) -> Step:
    """Decode a barrier of a block. Without a number of threads it is for all of them, which must all come."""
    d.take("cta")
    if d.take("warp"):
        return warps.sync(d)
    what = d.take(*_BARRIERS)
    if what == "red":
        return _reduction(d)
    d.need(1 if what == "sync" else 2, 2)
    if d.name == "barrier":
        d.take("aligned")
    if not what:
        raise d.unknown()
    pc, number, known = d.pc, d.source(0, "u4"), d.literal(0)
    simple = len(d.operands) == 1 and known is not None and known < 16
    threads = d.source(1, "u4") if len(d.operands) == 2 else -1

    def action(v: Values, s: Lanes) -> int | None:
        if simple and s.count == s.size and s.blocks * s.geometry.threads == s.size:
            races = s.spaces["shared"].races
            if races is not None:
                races.forget()
            return None
        which, expected = _which(v, s, number, threads)
        if what == "arrive":
            s.arrived[:, which] += np.bincount(s.block_of[s.mask], minlength=s.blocks)
            release(s, which)
            return None
        wait(s, pc, which, expected)
        release(s, which)
        return RESCHEDULE

    return d.same(action, control=True)


def _which(v: Values, s: Lanes, number: int, threads: int) -> tuple[int, Array]:
    """Return the number of a barrier, which must be the same for all active lanes, and how many lanes it is for."""
    numbers = s.active(v[number])
    which = int(numbers[0])
    if which > 15 or (numbers != which).any():
        raise Fault(f"barriers {sorted(set(numbers.tolist()))}: one number from 0 to 15 for all lanes", 0)
    if threads < 0:
        return which, np.full(s.size, s.geometry.threads)
    expected = v[threads].astype("i8")
    bad = (s.active(expected) % 32 != 0) | (s.active(expected) == 0)
    if bad.any():
        raise Fault("a barrier for a number of threads that is no multiple of 32", int(bad.argmax()))
    return which, expected


def _reduction(d: Decoder) -> Step:
    """Decode a barrier that counts or joins predicates of all threads: lanes write, wait, and read when they go on."""
    d.need(3, 4)
    d.take("aligned")
    how, kind = d.take("popc", "and", "or"), d.take_type("u32", "pred")
    if not how or (how == "popc") != (kind.name == "u32"):
        raise d.unknown()
    target = d.target(0, kind.dtype)
    number, threads = d.source(1, "u4"), d.source(2, "u4") if len(d.operands) == 4 else -1
    vote, negated = d.predicate(len(d.operands) - 1)
    pc = d.pc

    def action(v: Values, s: Lanes) -> int:
        which, expected = _which(v, s, number, threads)
        s.votes[s.mask] = (~v[vote] if negated else v[vote])[s.mask]
        wait(s, pc, which, expected)
        done = release(s, which)
        lanes = np.flatnonzero(done)
        yes = np.bincount(s.block_of[lanes], s.votes[lanes], minlength=s.blocks).astype("i8")
        every = np.bincount(s.block_of[lanes], minlength=s.blocks)
        found = yes if how == "popc" else yes == every if how == "and" else yes > 0
        v[target][lanes] = found[s.block_of[lanes]]
        return RESCHEDULE

    return d.same(action, control=True)


@operation("membar", "fence")
def fence(d: Decoder) -> Step:
    """Decode what orders memory: everything is seen at once here, but what a block wrote before is no race from now."""
    wide = bool(d.take("gl", "sys", "gpu"))
    del d.rest[:]
    return d.same(lambda v, s: s.publish() if wide else None)


@operation("nanosleep", "griddepcontrol", "pmevent", "setmaxnreg")
def nothing(d: Decoder) -> Step:
    """Decode what waits a while or is a hint."""
    del d.rest[:]
    return d.same(lambda v, s: None)
