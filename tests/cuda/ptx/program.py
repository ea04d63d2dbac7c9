"""A kernel with all functions that it calls, decoded into one list of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from . import operations  # noqa: F401  # registers what is known
from .decoder import Decoder, Step, decode
from .errors import PtxError, PtxSyntaxError
from .layout import Layout
from .operands import (
    Address,
    Function,
    Group,
    Immediate,
    Instruction,
    Operand,
    Pair,
    Register,
    Symbol,
    Variable,
    Vector,
)
from .registers import Registers

if TYPE_CHECKING:
    from .module import Module


class Program:
    """The steps of a kernel; device functions stand first, so that lanes inside of one go before the others."""

    def __init__(self, module: Module, entry: Function) -> None:
        self.module, self.entry = module, entry
        self.registers, self.layout = Registers(), Layout()
        self.functions = list(self._reachable(entry, ()))
        self.starts: dict[str, int] = {}
        self.results: dict[int, list[Callable[..., None]]] = {}  # of calls: what lanes do that come back
        self.instructions: list[Instruction] = []
        self.owners: list[str] = []
        for function in self.functions:
            self.starts[function.name] = len(self.instructions)
            self.instructions += [*function.body, Instruction("ret", (), None, function.line, "} (the end)")]
            self.owners += [function.name] * (len(function.body) + 1)
        self.start = self.starts[entry.name]
        self._place()
        self._find_constants()
        steps = [self._decode(pc) for pc in range(len(self.instructions))]
        self.whole = [step.whole for step in steps]
        self.masked = [step.masked for step in steps]

    def _decode(self, pc: int) -> Step:
        instruction = self.instructions[pc]
        try:
            return decode(self, instruction, pc, self.owners[pc])
        except PtxError as error:
            raise type(error)(
                f"{self.owners[pc]}, line {instruction.line}: {error} (in {instruction.text!r})"
            ) from None

    def _reachable(self, function: Function, callers: tuple[str, ...]) -> Iterator[Function]:
        """Yield a function after those that it calls, each once."""
        seen: set[str] = set()
        for instruction in function.body:
            if instruction.parts[0] != "call":
                continue
            for operand in instruction.operands:
                if not isinstance(operand, Symbol) or operand.name not in self.module.functions:
                    continue
                if operand.name in (*callers, function.name):
                    raise PtxSyntaxError(
                        f"line {instruction.line}: {operand.name} calls itself, which is not implemented"
                    )
                for found in self._reachable(self.module.functions[operand.name], (*callers, function.name)):
                    if found.name not in seen:
                        seen.add(found.name)
                        yield found
        yield function

    def _place(self) -> None:
        """Place parameters, frames and the shared variables that are named."""
        for variable in self.entry.params:
            self.layout.param.place(variable)
        for function in self.functions:
            for variable in () if function.is_entry else (*function.params, *function.returns):
                self.layout.frame.place(variable)
            for variable in function.variables:
                if variable.space == "param":
                    self.layout.frame.place(variable)
        dynamic: dict[str, Variable] = {}
        for instruction in self.instructions:
            for operand in _inside(instruction.operands):
                if isinstance(operand, Variable) and operand.space == "shared":
                    if operand.count:
                        self.layout.shared.place(operand)
                    else:
                        dynamic[operand.name] = operand
        self.layout.place_dynamic(list(dynamic.values()))

    def _find_constants(self) -> None:
        """Find registers that are written once, with a literal, in every run of the program."""
        writes: dict[str, int] = {}
        literals: dict[str, Immediate] = {}
        for owner, instruction in zip(self.owners, self.instructions, strict=True):
            first = instruction.operands[:1]
            groups = tuple(x for x in instruction.operands[1:] if isinstance(x, Group))
            for operand in _inside((*first, *groups)):
                if isinstance(operand, Register):
                    name = f"{owner}:{operand.name}"
                    writes[name] = writes.get(name, 0) + 1
            if instruction.parts[0] == "mov" and instruction.guard is None and len(instruction.operands) == 2:
                target, value = instruction.operands
                if isinstance(target, Register) and isinstance(value, Immediate) and target.type.kind != "pred":
                    literals[f"{owner}:{target.name}"] = value
        self.registers.constants = {name: value for name, value in literals.items() if writes[name] == 1}

    def address_of(self, operand: Operand | None) -> int:
        """Return the address of a variable in its space."""
        if isinstance(operand, Symbol):
            found = self.module.variables.get(operand.name)
            if found is None:
                raise PtxSyntaxError(f"{operand.name} is not declared")
            operand = found
        if not isinstance(operand, Variable):
            raise PtxSyntaxError(f"{operand} has no address")
        if operand.space in ("global", "const"):
            return self.module.addresses[operand.name]
        if operand.space == "shared":
            offsets = self.layout.shared.offsets if operand.count else self.layout.dynamic
            return offsets[operand.name]
        if operand.space == "local":
            return self.layout.local.place(operand)
        return self.area_of(operand)[1]

    def area_of(self, variable: Variable) -> tuple[str, int]:
        """Return whether a parameter is one of the kernel ("param") or of a call ("frame"), and its offset."""
        if variable.name in self.layout.param.offsets and variable in self.entry.params:
            return "param", self.layout.param.offsets[variable.name]
        return "frame", self.layout.frame.offsets[variable.name]

    def label(self, decoder: Decoder, symbol: Operand) -> int:
        """Return the program counter of a label."""
        function = self.module.functions[decoder.function]
        place = function.label(symbol) if isinstance(symbol, Symbol) else None
        if place is None:
            raise PtxSyntaxError(f"{symbol} is no label")
        return self.starts[function.name] + place

    def table(self, decoder: Decoder, symbol: Operand) -> list[int]:
        """Return the program counters of a table of brx.idx."""
        function = self.module.functions[decoder.function]
        if not isinstance(symbol, Symbol) or symbol.name not in function.tables:
            raise PtxSyntaxError(f"{symbol} is no table of branches")
        return [self.label(decoder, Symbol(name, symbol.scopes)) for name in function.tables[symbol.name]]


def _inside(operands: tuple[Operand, ...]) -> Iterator[Operand]:
    """Yield operands and what they are made of."""
    for operand in operands:
        yield operand
        if isinstance(operand, Vector | Group):
            yield from _inside(operand.items)
        elif isinstance(operand, Pair):
            yield from _inside((operand.first, operand.second))
        elif isinstance(operand, Address) and operand.base is not None:
            yield operand.base
