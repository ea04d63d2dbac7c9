"""Parses a text of PTX into functions and variables."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from . import declarations
from .errors import PtxError, PtxSyntaxError
from .literals import integer, literal
from .operands import (
    Address,
    Function,
    Group,
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
from .statements import Statement, split, statements

_DECLARED = re.compile(r"(\.(visible|weak|extern|common)\s+)*\.(global|const|shared|local|param)\b")
_GUARD = re.compile(r"@(!?)\s*([\w$%]+)\s+")
_OFFSET = re.compile(r"(.*?)\s*([+-])\s*(-?\w+)$", re.DOTALL)
_SKIPPED = re.compile(r"\.(pragma|alias|callprototype|noreturn|calltargets)\b")


@dataclass(slots=True)
class Text:
    """What a text of PTX declares."""

    version: str = ""
    target: str = ""
    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)  # functions whose bodies are elsewhere


class Parser:
    """Reads the statements of one text."""

    def __init__(self) -> None:
        self.text = Text()
        self._function: Function | None = None
        self._scopes: list[tuple[int, dict[str, Register | Variable]]] = []
        self._number = 0

    def parse(self, text: str) -> Text:
        for statement in statements(text):
            try:
                self._read(statement)
            except PtxError as error:
                raise type(error)(f"line {statement.line}: {error} (in {statement.text[:80]!r})") from None
        if self._function:
            raise PtxSyntaxError(f"no }} ends {self._function.name}")
        return self.text

    def _read(self, statement: Statement) -> None:
        kind, text = statement.kind, statement.text
        if kind == "line":
            words = text.split()
            if words and words[0] in (".version", ".target"):
                setattr(self.text, words[0][1:], words[1].strip(","))
        elif kind == "declaration":
            self.text.declared.add(declarations.header(text)[0])
        elif kind == "header":
            name, is_entry, params, returns, limits = declarations.header(text)
            self._function = Function(name, is_entry, params, returns, limits, [], {}, {}, [], statement.line)
            self._number = 0
        elif kind == "open":
            self._open()
        elif kind == "close":
            self._close()
        elif kind == "label":
            self._label(text.rstrip(": \t\n"))
        elif _SKIPPED.match(text):
            pass
        elif _DECLARED.match(text):
            self._declare(text)
        elif self._function is None:
            raise PtxSyntaxError("a statement outside of every function")
        elif text.startswith(".reg"):
            self._registers(text)
        elif text.startswith(".branchtargets"):
            names = tuple(split(text.removeprefix(".branchtargets")))
            self._function.tables[self._last_label] = names
        elif text.startswith("."):
            raise PtxSyntaxError(f"directive {text.split()[0]} is not known")
        else:
            self._function.body.append(self._instruction(text, statement.line))

    # Scopes

    def _open(self) -> None:
        if self._function is None:
            raise PtxSyntaxError("{ outside of every function")
        names: dict[str, Register | Variable] = {}
        if not self._scopes:
            for variable in (*self._function.params, *self._function.returns):
                names[variable.name] = variable
        self._scopes.append((self._number, names))
        self._number += 1

    def _close(self) -> None:
        if not self._scopes:
            raise PtxSyntaxError("} without {")
        self._scopes.pop()
        if not self._scopes and self._function:
            self.text.functions[self._function.name] = self._function
            self._function = None

    def _label(self, name: str) -> None:
        if self._function is None:
            raise PtxSyntaxError(f"label {name} outside of every function")
        self._last_label = name
        self._function.labels[self._scopes[-1][0], name] = len(self._function.body)

    def _unique(self, name: str) -> str:
        number = self._scopes[-1][0]
        return f"{name}#{number}" if number else name

    def _declare(self, text: str) -> None:
        for variable in declarations.variables(text):
            if self._function is None:
                self.text.variables[variable.name] = variable
                continue
            mine = replace(variable, name=f"{self._function.name}.{self._unique(variable.name)}")
            self._function.variables.append(mine)
            self._scopes[-1][1][variable.name] = mine

    def _registers(self, text: str) -> None:
        for name, kind in declarations.registers(text):
            self._scopes[-1][1][name] = Register(self._unique(name), kind)

    def _find(self, name: str) -> Register | Variable | None:
        for _, names in reversed(self._scopes):
            if name in names:
                return names[name]
        return self.text.variables.get(name)

    # Instructions

    def _instruction(self, text: str, line: int) -> Instruction:
        guard: Register | Negated | None = None
        found, rest = _GUARD.match(text), text
        if found:
            register = self._find(found[2])
            if not isinstance(register, Register):
                raise PtxSyntaxError(f"predicate {found[2]} is not declared")
            guard = Negated(register) if found[1] else register
            rest = text[found.end() :]
        opcode, _, tail = rest.replace("\n", " ").replace("\t", " ").strip().partition(" ")
        if "{" in opcode or "[" in opcode:
            raise PtxSyntaxError("no instruction")
        operands = tuple(self._operand(part) for part in split(tail))
        return Instruction(opcode, operands, guard, line, " ".join(text.split()))

    def _operand(self, text: str) -> Operand:
        if text == "_":
            return Sink()
        if text.startswith("{"):
            return Vector(tuple(self._operand(part) for part in split(text[1:-1])))
        if text.startswith("("):
            return Group(tuple(self._operand(part) for part in split(text[1:-1])))
        if text.startswith("["):
            return self._address(text[1:-1].strip())
        if "|" in text:
            first, second = split(text, "|")
            return Pair(self._operand(first), self._operand(second))
        if text.startswith("!"):
            register = self._operand(text[1:].strip())
            if not isinstance(register, Register):
                raise PtxSyntaxError(f"{text} is no predicate")
            return Negated(register)
        return self._plain(text)

    def _plain(self, text: str) -> Operand:
        named = self._find(text)
        if named is not None:
            return named
        value = literal(text)
        if value is not None:
            return value
        parts = [self._find(f"{text}.{letter}") for letter in "xyzw"]
        if parts[0] is not None:
            return Vector(tuple(part for part in parts if isinstance(part, Register)))
        if text.startswith("%"):
            return Special(text)
        offset = _OFFSET.match(text)
        if offset:
            return self._address(text)
        if not re.match(r"[\w$]+$", text):
            raise PtxSyntaxError(f"operand {text!r} is not understood")
        return Symbol(text, tuple(number for number, _ in self._scopes))

    def _address(self, text: str) -> Address:
        parts = split(text)
        if len(parts) != 1:
            raise PtxSyntaxError(f"address [{text}] has several parts")
        offset = 0
        found = _OFFSET.match(text)
        if found and self._find(text) is None:
            number = integer(found[3])
            if number is None:
                raise PtxSyntaxError(f"address [{text}] is not understood")
            text, offset = found[1], -number if found[2] == "-" else number
        base = self._plain(text.strip())
        if isinstance(base, Immediate) and isinstance(base.value, int):
            return Address(None, base.value + offset)
        if not isinstance(base, Register | Variable | Symbol):
            raise PtxSyntaxError(f"address [{text}] is not understood")
        return Address(base, offset)
