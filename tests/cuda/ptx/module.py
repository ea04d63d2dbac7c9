"""A module of PTX: parsed once, its variables in memory, its kernels launched."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import LaunchError, PtxSyntaxError
from .geometry import Geometry
from .interpreter import Interpreter
from .lanes import Lanes
from .memory import Memory
from .operands import Function, Variable
from .parser import Parser
from .program import Program

Array = np.ndarray[Any, Any]
_FORMATS = {
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "f4": "f",
    "f8": "d",
}
SHARED = 227 * 1024  # of a block on sm_90, the most that there is
LIMIT = 50_000_000
WIDTH = 4096


class Module:
    """The kernels of a text.

    >>> memory = Memory()
    >>> module = Module(text)
    >>> module.launch("scale", 3, 128, [memory.hold(y), memory.hold(x, writable=False), 257, 0.5], memory=memory)
    """

    def __init__(self, text: str) -> None:
        parsed = Parser().parse(text)
        self.version, self.target = parsed.version, parsed.target
        self.functions: dict[str, Function] = parsed.functions
        self.variables: dict[str, Variable] = parsed.variables
        self.declared = parsed.declared
        self.entries = tuple(name for name, function in self.functions.items() if function.is_entry)
        self._memory: dict[str, Array] = {}  # keeps the variables alive
        self._constants: set[str] = set()
        self.addresses = self._allocate()
        self._programs: dict[str, Program] = {}
        self._lanes: dict[tuple[Any, ...], Lanes] = {}
        self.steps = 0  # instructions times blocks of the last launch

    @property
    def entry(self) -> str:
        """The name of the only kernel."""
        if len(self.entries) != 1:
            raise LaunchError(f"there are {len(self.entries)} kernels: {', '.join(self.entries)}")
        return self.entries[0]

    def _allocate(self) -> dict[str, int]:
        """Give variables of the module memory, and their initial values."""
        kept = [v for v in self.variables.values() if v.space in ("global", "const")]
        for function in self.functions.values():
            kept += [v for v in function.variables if v.space in ("global", "const")]
        self._constants = {v.name for v in kept if v.space == "const"}
        addresses: dict[str, int] = {}
        for variable in kept:
            align = max(16, variable.align)
            raw = np.zeros(max(variable.nbytes, 1) + align, "u1")
            start = -raw.ctypes.data % align
            self._memory[variable.name] = raw[start : start + max(variable.nbytes, 1)]
            addresses[variable.name] = raw.ctypes.data + start
        for variable in kept:
            values = [_initial(value, variable, addresses) for value in variable.initial]
            data = b"".join(values)
            self._memory[variable.name][: len(data)] = np.frombuffer(data, "u1")
        return addresses

    def variable(self, name: str) -> Array:
        """Return the bytes of a variable in global or constant memory."""
        return self._memory[name]

    def program(self, entry: str) -> Program:
        """Return a kernel, decoded."""
        if entry not in self._programs:
            if entry not in self.entries:
                raise LaunchError(f"there is no kernel {entry}; there are {', '.join(self.entries) or 'none'}")
            self._programs[entry] = Program(self, self.functions[entry])
        return self._programs[entry]

    def launch(
        self,
        entry: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[int | float | bytes],
        shared: int = 0,
        *,
        memory: Memory,
        races: bool = True,
        strict: bool = True,
        limit: int = LIMIT,
        width: int = WIDTH,
    ) -> None:
        """Run a kernel to its end.

        Args:
            entry: Name of the kernel.
            grid: Blocks, in up to 3 dimensions.
            block: Threads of a block, in up to 3 dimensions.
            args: An int for an address or a whole number, a float, or bytes for an array of parameters.
            shared: Bytes of dynamic shared memory.
            memory: What the kernel may touch.
            races: Whether two warps (in shared memory) or blocks (in global memory) that touch the same bytes, one of
                them writing, are an error.
            strict: Whether reads of shared memory that nobody wrote are an error; otherwise they give NaN. Copies by
                cp.async that nobody waited for are found out only with it.
            limit: Instructions that a batch of blocks may take.
            width: Lanes of a batch: blocks run together as long as they fit, and at least one. Results do not depend on
                it, except the order of atomic operations of several blocks.

        Raises:
            LaunchError: Arguments, grid or block do not fit the kernel.
            Fault: What the kernel did wrong, with kernel, line, block and thread.
            UnknownInstruction: An opcode that is not implemented.
        """
        program = self.program(entry)
        geometry = Geometry.of(grid, block)
        self._check_limits(program.entry, geometry)
        total = program.layout.shared.nbytes + shared
        if total > SHARED:
            raise LaunchError(f"shared memory of {total} bytes: a block has at most {SHARED}")
        params = _params(program, args)
        blocks = max(1, min(geometry.blocks, width // geometry.lanes))
        key = (entry, geometry, blocks, shared, races, strict)
        if key not in self._lanes:
            self._lanes.clear()  # one at a time: they are large
            self._lanes[key] = Lanes(program, geometry, blocks, shared, params, races, strict)
        lanes = self._lanes[key]
        for name, address in self.addresses.items():
            memory.add(address, self._memory[name].nbytes, writable=name not in self._constants, name=name)
        memory.begin_launch(races and geometry.blocks > 1)
        self.steps = 0
        try:
            for first in range(0, geometry.blocks, blocks):
                count = min(blocks, geometry.blocks - first)
                lanes.begin(first, count, params, memory)
                Interpreter(program, lanes, limit).run()
                self.steps += lanes.steps * count
        finally:
            for address in self.addresses.values():
                memory.remove(address)

    @staticmethod
    def _check_limits(function: Function, geometry: Geometry) -> None:
        for name, sizes in function.limits.items():
            most = (*sizes, 1, 1)[:3]
            if name == "reqntid" and most != geometry.block:
                raise LaunchError(f"block {geometry.block}: {function.name} requires {most}")
            if name == "maxntid" and geometry.threads > most[0] * most[1] * most[2]:
                raise LaunchError(f"block {geometry.block}: {function.name} takes at most {most}")


def _initial(value: int | float | str, variable: Variable, addresses: dict[str, int]) -> bytes:
    """Return the bytes of one initial value."""
    dtype = variable.type.dtype if variable.type.kind in "usbf" else variable.type.bits
    if isinstance(value, str):
        if value.startswith("bits "):
            return int(value[5:]).to_bytes(4, "little")
        name, _, offset = value.replace("generic(", "").replace(")", "").partition("+")
        if name.strip() not in addresses:
            raise PtxSyntaxError(f"{variable.name}: initial value {value} is not declared")
        value = addresses[name.strip()] + int(offset or "0", 0)
    if isinstance(value, int) and dtype[0] != "f":
        return (value % 2 ** (8 * variable.type.nbytes)).to_bytes(variable.type.nbytes, "little")
    return np.array(value, dtype).tobytes()


def _params(program: Program, args: Sequence[int | float | bytes]) -> bytes:
    """Return the bytes of a kernel's parameters."""
    function = program.entry
    if len(args) != len(function.params):
        raise LaunchError(f"{function.name} takes {len(function.params)} arguments, not {len(args)}")
    area = program.layout.param
    found = bytearray(max(area.nbytes, 1))
    for number, (variable, value) in enumerate(zip(function.params, args, strict=True)):
        start = area.offsets[variable.name]
        found[start : start + variable.nbytes] = _argument(number, variable, value)
    return bytes(found)


def _argument(number: int, variable: Variable, value: int | float | bytes) -> bytes:
    what = f"argument {number} ({variable.name}, .{variable.type.name})"
    if isinstance(value, bytes | bytearray):
        if len(value) != variable.nbytes:
            raise LaunchError(f"{what}: {len(value)} bytes, and it has {variable.nbytes}")
        return bytes(value)
    if variable.count != 1 or variable.type.kind not in "usbf":
        raise LaunchError(f"{what}: takes bytes, not {value!r}")
    if variable.type.kind == "f":
        return np.array(value, variable.type.dtype).tobytes()
    if isinstance(value, float) and variable.type.kind == "b" and variable.type.nbytes >= 4:
        return np.array(value, f"f{variable.type.nbytes}").tobytes()
    bits = 8 * variable.type.nbytes
    whole = int(value)
    if whole != value or not -(2 ** (bits - 1)) <= whole < 2**bits:
        raise LaunchError(f"{what}: {value!r} does not fit")
    return struct.pack(f"<{_FORMATS[f'u{variable.type.nbytes}']}", whole % 2**bits)
