"""The operands of an instruction, as they stand in the text."""

from __future__ import annotations

from dataclasses import dataclass

from .types import Type


@dataclass(frozen=True, slots=True)
class Register:
    name: str  # unique in its function: scopes that declare a name again add their number
    type: Type


@dataclass(frozen=True, slots=True)
class Special:
    name: str  # %tid.x and others


@dataclass(frozen=True, slots=True)
class Immediate:
    """A literal: an int, or a float whose bits were given for 32 or 64 bits (kind "f32", "f64")."""

    value: int | float
    kind: str = "int"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable in memory: what it is called, where it lies and what it holds at first."""

    name: str
    space: str  # global, const, shared, local, param
    align: int
    type: Type
    count: int  # elements; 0 for an array without size
    initial: tuple[int | float | str, ...] = ()
    external: bool = False

    @property
    def nbytes(self) -> int:
        return self.type.nbytes * self.count


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that is no register: a label, a variable or a function."""

    name: str
    scopes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Address:
    base: Register | Variable | Symbol | None
    offset: int


@dataclass(frozen=True, slots=True)
class Vector:
    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two destinations: ``%p|%q``."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Negated:
    register: Register


@dataclass(frozen=True, slots=True)
class Group:
    """Arguments or results of a call, in parentheses."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Sink:
    """A destination that nobody wants: ``_``."""


Operand = Register | Special | Immediate | Variable | Symbol | Address | Vector | Pair | Negated | Group | Sink


@dataclass(frozen=True, slots=True)
class Instruction:
    opcode: str  # the whole: ld.global.nc.v4.f32
    operands: tuple[Operand, ...]
    guard: Register | Negated | None
    line: int
    text: str

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.opcode.replace("::", "__").split("."))


@dataclass(slots=True)
class Function:
    """A kernel (entry) or a device function."""

    name: str
    is_entry: bool
    params: tuple[Variable, ...]
    returns: tuple[Variable, ...]
    limits: dict[str, tuple[int, ...]]  # maxntid, reqntid
    body: list[Instruction]
    labels: dict[tuple[int, str], int]  # scope and name to the number of the next instruction
    tables: dict[str, tuple[str, ...]]  # of brx.idx
    variables: list[Variable]  # declared inside: local, shared, param
    line: int

    def label(self, symbol: Symbol) -> int | None:
        for scope in reversed(symbol.scopes):
            if (scope, symbol.name) in self.labels:
                return self.labels[scope, symbol.name]
        return None
