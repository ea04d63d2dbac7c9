"""Turns an instruction into two functions of Python: one for when nobody else is alive, one for masked lanes.

Each takes the list of values and the batch of lanes; it returns None to go on, the program counter of a jump that all
active lanes take, or RESCHEDULE after it has set the program counters of the lanes itself. What is told apart by names
is told apart here, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import PtxSyntaxError, UnknownInstruction
from .lanes import Lanes
from .operands import (
    Address,
    Immediate,
    Instruction,
    Negated,
    Operand,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    Variable,
    Vector,
)
from .types import TYPES, Type

if TYPE_CHECKING:
    from .program import Program

Array = np.ndarray[Any, Any]
Values = list[Array]
Action = Callable[[Values, Lanes], int | None]
RESCHEDULE = -1


class Step(NamedTuple):
    """The two functions of an instruction; control: its guard decides who goes where, not who writes."""

    whole: Action
    masked: Action
    control: bool = False


class Decoder:
    """One instruction while it is decoded: its modifiers are taken one after another, and none may be left."""

    def __init__(self, program: Program, instruction: Instruction, pc: int, function: str) -> None:
        self.program, self.instruction, self.pc, self.function = program, instruction, pc, function
        self.operands = instruction.operands
        self.rest = list(instruction.parts[1:])
        self.name = instruction.parts[0]

    # Modifiers

    def take(self, *names: str) -> str:
        """Remove the first modifier of some names and return it, or "" if none is there."""
        for name in self.rest:
            if name in names:
                self.rest.remove(name)
                return name
        return ""

    def take_type(self, *allowed: str) -> Type:
        """Remove the first type and return it."""
        for name in self.rest:
            if name in TYPES and (not allowed or name in allowed):
                self.rest.remove(name)
                return TYPES[name]
        raise self.unknown()

    def unknown(self) -> UnknownInstruction:
        return UnknownInstruction(f"{self.instruction.opcode} is not implemented")

    def need(self, count: int, most: int = 0) -> None:
        """Raise where there are other numbers of operands."""
        if not count <= len(self.operands) <= max(most, count):
            raise PtxSyntaxError(f"{self.instruction.opcode} takes {count} operands, not {len(self.operands)}")

    # Operands

    def _own(self, register: Register) -> str:
        return f"{self.function}:{register.name}"

    def source(self, operand: int | Operand, dtype: str) -> int:
        """Return the slot of a source as a dtype of just its width."""
        found = self.operands[operand] if isinstance(operand, int) else operand
        slots = self.program.registers
        if isinstance(found, Register):
            constant = slots.constants.get(self._own(found))
            if constant is not None:
                return slots.constant(constant, dtype)
            return slots.register(self._own(found), found.type.nbytes, dtype)
        if isinstance(found, Immediate):
            return slots.constant(found, dtype)
        if isinstance(found, Special):
            return slots.special(found, dtype)
        if isinstance(found, Variable) and found.space == "param" and self.program.area_of(found)[0] == "frame":
            raise UnknownInstruction(f"the address of {found.name}, a parameter of a call, is not implemented")
        if isinstance(found, Variable | Symbol):
            return slots.constant(Immediate(self.program.address_of(found)), dtype)
        if isinstance(found, Address):  # symbol+offset as a value
            return slots.constant(Immediate(self.program.address_of(found.base) + found.offset), dtype)
        raise PtxSyntaxError(f"operand {found} is no source")

    def literal(self, operand: int) -> int | None:
        """Return the bits of a source that is a literal, or a register that only ever holds one."""
        found = self.operands[operand]
        if isinstance(found, Register):
            found = self.program.registers.constants.get(self._own(found), found)
        return found.value & 0xFFFFFFFF if isinstance(found, Immediate) and isinstance(found.value, int) else None

    def wide(self, operand: int | Operand, nbytes: int) -> int:
        """Return the slot of the bits of a source that may be wider than nbytes (st, cvt)."""
        found = self.operands[operand] if isinstance(operand, int) else operand
        if isinstance(found, Register) and found.type.nbytes >= nbytes:
            return self.source(found, f"u{found.type.nbytes}")
        return self.source(found, "u4" if isinstance(found, Special) else f"u{nbytes}")

    def target(self, operand: int | Operand, dtype: str) -> int:
        """Return the slot of a destination as a dtype of just its width."""
        found = self.operands[operand] if isinstance(operand, int) else operand
        if isinstance(found, Sink):
            return self.program.registers.register("_", np.dtype(dtype).itemsize, dtype)
        if not isinstance(found, Register):
            raise PtxSyntaxError(f"operand {found} is no destination")
        return self.program.registers.register(self._own(found), found.type.nbytes, dtype)

    def wide_target(self, operand: int | Operand, kind: str, nbytes: int) -> int:
        """Return the slot of a destination that may be wider (ld, cvt): signed ones are extended by their sign."""
        found = self.operands[operand] if isinstance(operand, int) else operand
        if isinstance(found, Register) and found.type.kind != "pred" and found.type.nbytes > nbytes:
            return self.target(found, f"{'i' if kind == 's' else 'u'}{found.type.nbytes}")
        return self.target(found, f"{'i' if kind == 's' else 'u'}{nbytes}")

    def predicate(self, operand: int | Operand) -> tuple[int, bool]:
        """Return the slot of a predicate and whether it is negated."""
        found = self.operands[operand] if isinstance(operand, int) else operand
        if isinstance(found, Negated):
            return self.source(found.register, "?"), True
        return self.source(found, "?"), False

    def vector(self, operand: int | Operand) -> tuple[Operand, ...]:
        """Return the items of a vector; something else is a vector of one."""
        found = self.operands[operand] if isinstance(operand, int) else operand
        return found.items if isinstance(found, Vector) else (found,)

    def pair(self, operand: int) -> tuple[Operand, Operand]:
        """Return two destinations, the second a sink where there is only one."""
        found = self.operands[operand]
        return (found.first, found.second) if isinstance(found, Pair) else (found, Sink())

    def address(self, operand: int) -> Callable[[Values, Lanes], Array]:
        """Return what gives the addresses (uint64) of active lanes."""
        found = self.operands[operand]
        if not isinstance(found, Address):
            raise PtxSyntaxError(f"operand {found} is no address")
        if not isinstance(found.base, Register):
            base = 0 if found.base is None else self.program.address_of(found.base)
            slot = self.program.registers.constant(Immediate(base + found.offset), "u8")
            return lambda v, s: s.active(v[slot])
        return self.moved(self.wide(found.base, 4), found.offset)

    @staticmethod
    def moved(slot: int, offset: int) -> Callable[[Values, Lanes], Array]:
        """Return what gives a register of active lanes, as uint64, plus an offset."""
        constant = np.array(offset % 2**64, "u8")

        def moved(v: Values, s: Lanes) -> Array:
            found = v[slot] if s.lanes is None else v[slot][s.lanes]
            if found.dtype.itemsize != 8:
                found = (found + constant.astype("u4")).astype("u8")  # addresses of 32 bits wrap around there
                return found
            return found + constant

        return moved if offset else lambda v, s: s.active(v[slot]).astype("u8", copy=False)

    # Forms of steps

    def elementwise(self, function: Callable[..., Array], target: int, *sources: int) -> Step:
        """Return the step of a function like a ufunc: function(*sources, out=target)."""
        if len(sources) == 1:
            (a,) = sources

            def whole(v: Values, s: Lanes) -> None:
                function(v[a], out=v[target])

            def masked(v: Values, s: Lanes) -> None:
                np.copyto(v[target], function(v[a]), casting="unsafe", where=s.mask)

        elif len(sources) == 2:
            a, b = sources

            def whole(v: Values, s: Lanes) -> None:
                function(v[a], v[b], out=v[target])

            def masked(v: Values, s: Lanes) -> None:
                np.copyto(v[target], function(v[a], v[b]), casting="unsafe", where=s.mask)

        else:
            raise AssertionError("a ufunc of one or two sources")
        return Step(whole, masked)

    def computed(self, function: Callable[..., Array], target: int, *sources: int) -> Step:
        """Return the step of a function that returns a new array."""

        def whole(v: Values, s: Lanes) -> None:
            v[target][...] = function(*[v[n] for n in sources])

        def masked(v: Values, s: Lanes) -> None:
            if 2 * s.count <= s.size:  # what takes several steps is worth gathering who takes part
                v[target][s.lanes] = function(*[v[n][s.lanes] for n in sources])
            else:
                np.copyto(v[target], function(*[v[n] for n in sources]), casting="unsafe", where=s.mask)

        return Step(whole, masked)

    @staticmethod
    def same(action: Action, control: bool = False) -> Step:
        """Return the step of an action that looks after the mask itself."""
        return Step(action, action, control)


OPERATIONS: dict[str, Callable[[Decoder], Step]] = {}


def operation(*names: str) -> Callable[[Callable[[Decoder], Step]], Callable[[Decoder], Step]]:
    """Register what decodes instructions of some names."""

    def register(function: Callable[[Decoder], Step]) -> Callable[[Decoder], Step]:
        for name in names:
            assert name not in OPERATIONS, name
            OPERATIONS[name] = function
        return function

    return register


def decode(program: Program, instruction: Instruction, pc: int, function: str) -> Step:
    """Return an instruction's step, its guard included."""
    decoder = Decoder(program, instruction, pc, function)
    found = OPERATIONS.get(decoder.name)
    if found is None:
        raise decoder.unknown()
    step = found(decoder)
    if decoder.rest:
        raise decoder.unknown()
    if instruction.guard is None or decoder.name == "bra":  # a branch looks after its guard itself
        return step
    slot, negated = decoder.predicate(instruction.guard)
    return _guarded_control(step, slot, negated, pc) if step.control else _guarded(step, slot, negated)


def _guarded(step: Step, slot: int, negated: bool) -> Step:
    def guarded(v: Values, s: Lanes) -> int | None:
        where = (~v[slot] if negated else v[slot]) & s.mask
        count = np.count_nonzero(where)
        if count == s.count:
            return step.whole(v, s) if s.whole else step.masked(v, s)
        if count:
            kept = s.mask, s.count, s.lanes, s.whole
            s.activate(where, False)
            step.masked(v, s)
            s.mask, s.count, s.lanes, s.whole = kept
        return None

    return Step(guarded, guarded)


def _guarded_control(step: Step, slot: int, negated: bool, pc: int) -> Step:
    """Where lanes differ, those without the instruction go on and the others come back to it alone."""

    def guarded(v: Values, s: Lanes) -> int | None:
        where = (~v[slot] if negated else v[slot]) & s.mask
        count = np.count_nonzero(where)
        if count == s.count:
            return step.whole(v, s)
        if count == 0:
            return None
        s.pcs[s.mask] = pc + 1
        s.pcs[where] = pc
        return RESCHEDULE

    return Step(guarded, guarded)
