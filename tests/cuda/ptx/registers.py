"""Registers, constants and special registers, each with a place in the list of values."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import PtxSyntaxError, UnknownInstruction
from .geometry import SPECIALS
from .operands import Immediate, Register, Special

if TYPE_CHECKING:
    from .lanes import Lanes

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a value comes from.

    A register (row of the bank of its width), the bits of a constant, a special register or bytes of the parameters.
    """

    kind: str  # register, constant, special, parameter
    dtype: str
    place: int = 0  # row, bits or offset
    name: str = ""

    def view_in(self, lanes: Lanes) -> Array:
        """Return the array of lanes that holds it."""
        if self.kind == "register":
            return lanes.banks[np.dtype(self.dtype).itemsize][self.place].view(self.dtype)
        if self.kind == "special":
            return lanes.specials[self.name].view(self.dtype)
        if self.kind == "parameter":
            return np.zeros(lanes.size, self.dtype)  # filled when a launch begins
        nbytes = np.dtype(self.dtype).itemsize
        return np.frombuffer(self.place.to_bytes(nbytes, "little"), self.dtype).repeat(lanes.size)

    def fill(self, value: Array, params: bytes) -> None:
        """Write what is the same for a whole launch."""
        value.fill(np.frombuffer(params, self.dtype, 1, self.place)[0])


@dataclass(slots=True)
class Registers:
    """The slots of a program."""

    constants: dict[str, Immediate] = field(default_factory=dict)  # registers that only ever hold a literal
    slots: list[Slot] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)  # rows of the bank of each width
    _rows: dict[str, int] = field(default_factory=dict)
    _numbers: dict[Slot, int] = field(default_factory=dict)

    def _slot(self, slot: Slot) -> int:
        if slot not in self._numbers:
            self._numbers[slot] = len(self.slots)
            self.slots.append(slot)
        return self._numbers[slot]

    def register(self, name: str, nbytes: int, dtype: str) -> int:
        """Return the slot of a register, whose name is unique in the program, seen as a dtype of its width."""
        if np.dtype(dtype).itemsize != nbytes:
            raise PtxSyntaxError(
                f"register {name} of {8 * nbytes} bits where {8 * np.dtype(dtype).itemsize} are asked for"
            )
        if name not in self._rows:
            self._rows[name] = self.counts.get(nbytes, 0)
            self.counts[nbytes] = self._rows[name] + 1
        return self._slot(Slot("register", dtype, self._rows[name]))

    def rows(self, slots: list[int]) -> list[int]:
        """Return the rows of some slots in the bank of their width; none if one of them is no register."""
        found = [self.slots[slot] for slot in slots]
        return [slot.place for slot in found] if all(slot.kind == "register" for slot in found) else []

    def constant(self, value: Immediate, dtype: str) -> int:
        """Return the slot of a literal; a float that is read as bits gives its bits."""
        return self._slot(Slot("constant", dtype, _bits(value, dtype)))

    def special(self, special: Special, dtype: str) -> int:
        name = special.name
        if name not in SPECIALS:
            raise UnknownInstruction(f"{name} is no register that is known")
        if np.dtype(dtype).itemsize != 4:
            raise UnknownInstruction(f"special register {name} as {8 * np.dtype(dtype).itemsize} bits")
        return self._slot(Slot("special", dtype, 0, name))

    def parameter(self, offset: int, dtype: str) -> int:
        return self._slot(Slot("parameter", dtype, offset))


def _bits(value: Immediate, dtype: str) -> int:
    """Return a literal's bits in a dtype."""
    kind, nbytes = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    number = value.value
    if value.kind == "f32":
        assert isinstance(number, int)
        if kind != "f" or nbytes == 4:
            return number
        number = struct.unpack("<f", struct.pack("<I", number))[0]
    if kind == "f":
        with np.errstate(all="ignore"):
            return int.from_bytes(np.array(number, dtype).tobytes(), "little")
    if isinstance(number, float):
        return int(np.array(number, "f8" if nbytes == 8 else "f4").view(f"u{max(nbytes, 4)}"))
    if kind == "b":
        return int(bool(number))
    if not -(2 ** (8 * nbytes)) < number < 2 ** (8 * nbytes):
        raise PtxSyntaxError(f"literal {number} does not fit into {8 * nbytes} bits")
    return number & (2 ** (8 * nbytes) - 1)


def dtype_of(register: Register) -> str:
    """Return the dtype of a register's bits."""
    return register.type.bits
