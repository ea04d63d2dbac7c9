"""Object files laid into memory by hand, where that is simple: what LLVM makes of kernels on Linux on x86-64.

LLVM itself takes fifty megabytes of a process and a tenth of a second to be there, and a process whose kernels are all
on disk has no other use for it. Kernels are compiled for code that may lie anywhere: wherever they name a place, all 64
bits of its address follow. So there is one kind of thing to fill in, and a file that has any other is left to LLVM.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from pio.system import HERE

# The format is that of the System V ABI; elf.h of the C library has these names.
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")
_ELF64: Final = b"\x7fELF\x02\x01\x01"  # of 64 bits, little-endian
_RELOCATABLE, _X86_64 = 1, 62
_PROGBITS, _SYMBOLS, _RELOCATIONS, _ZEROS, _UNWIND = 1, 2, 4, 8, 0x70000001
_OTHER_RELOCATIONS: Final = (9, 19)  # SHT_REL, SHT_RELR: what to add lies in the code, and short ones
_WRITTEN, _KEPT, _RUN, _PER_THREAD = 1, 2, 4, 0x400
_ABSOLUTE: Final = 1  # R_X86_64_64: an address
_UNDEFINED, _SPECIAL = 0, 0xFF00  # numbers of sections that are none


class Unknown(Exception):
    """A file has what this module does not know; LLVM may."""


class _Section(NamedTuple):
    """A section's header, as it is in the file."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int

    @property
    def is_kept(self) -> bool:
        """Whether it is to lie in memory; nothing looks for a way out of a kernel, so what tells one does not."""
        return bool(self.flags & _KEPT) and self.kind != _UNWIND


class _File:
    """An object file.

    Attributes:
        code: Its bytes.
        sections: Headers of its sections.
        symbols: For each symbol its name, the number of the section that it lies in, and where in there.
    """

    def __init__(self, code: bytes) -> None:
        ident, kind, machine, _, _, _, at, *_, count, _ = _HEADER.unpack_from(code)
        if not ident.startswith(_ELF64) or (kind, machine) != (_RELOCATABLE, _X86_64):
            raise Unknown
        self.code = code
        self.sections = [_Section(*_SECTION.unpack_from(code, at + i * _SECTION.size)) for i in range(count)]
        if any(s.kind not in (_PROGBITS, _ZEROS) or s.flags & _PER_THREAD for s in self.sections if s.is_kept):
            raise Unknown
        (table,) = (section for section in self.sections if section.kind == _SYMBOLS)
        names = self.content(self.sections[table.link])
        self.symbols = [
            (names[name : names.index(0, name)].decode(), section, value)
            for name, _, _, section, value, _ in _SYMBOL.iter_unpack(self.content(table))
        ]

    def content(self, section: _Section) -> bytes:
        """The bytes of a section."""
        return self.code[section.offset : section.offset + section.size]

    def relocations(self) -> Iterator[tuple[int, int, int, int]]:
        """What is to be filled in: of which section, at which byte, the number of a symbol, and what to add to it."""
        for section in self.sections:
            if section.kind in _OTHER_RELOCATIONS:
                raise Unknown
            if section.kind == _RELOCATIONS and self.sections[section.info].is_kept:
                for at, what, more in _RELOCATION.iter_unpack(self.content(section)):
                    if what & 0xFFFFFFFF != _ABSOLUTE:
                        raise Unknown
                    yield section.info, at, what >> 32, more


def place(code: bytes, symbol: str) -> int:
    """Lay an object file into memory, for ever, and return the address of a symbol that it defines.

    Code, what is only read and what is written lie in pages of their own, and nothing that is run can be written.

    Raises:
        Unknown: The file has something else than code, constants, variables and addresses, or names a function that
            neither the program nor its libraries have.
        MemoryError: The system refuses the memory.
        PermissionError: It lets no memory be run that was written to.
    """
    file = _File(code)
    places, groups, size = _laid_out(file.sections)
    try:
        memory = HERE.private_memory(size)
    except OSError as error:
        raise MemoryError(f"the system refuses {size} bytes for a kernel") from error
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for number, at in places.items():
        if file.sections[number].kind == _PROGBITS:
            memory[at : at + file.sections[number].size] = file.content(file.sections[number])

    def address(number: int) -> int:
        name, section, value = file.symbols[number]
        if section == _UNDEFINED:
            return _outside(name)
        if section >= _SPECIAL or section not in places:
            raise Unknown
        return base + places[section] + value

    for section, at, number, more in file.relocations():
        struct.pack_into("<Q", memory, places[section] + at, address(number) + more & 0xFFFFFFFFFFFFFFFF)
    entry = address(next(i for i, (name, *_) in enumerate(file.symbols) if name == symbol))
    for at, nbytes, flags in groups:
        HERE.protect(base + at, nbytes, run=bool(flags & _RUN))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # helpers still run in there as the interpreter leaves
    return entry


def _laid_out(sections: list[_Section]) -> tuple[dict[int, int], list[tuple[int, int, int]], int]:
    """Where sections go.

    Returns:
        Where each begins, by its number; where pages begin that nobody writes to, how many bytes that is, and flags;
        and how many bytes it is together.
    """
    places: dict[int, int] = {}
    groups: list[tuple[int, int, int]] = []
    end = 0
    for flags in (_RUN, 0, _WRITTEN, _RUN | _WRITTEN):
        begin = end = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
        for number, section in enumerate(sections):
            if section.is_kept and section.flags & (_RUN | _WRITTEN) == flags:
                if flags == _RUN | _WRITTEN or section.alignment > mmap.PAGESIZE:
                    raise Unknown
                places[number] = -(-end // max(section.alignment, 1)) * max(section.alignment, 1)
                end = places[number] + section.size
        if end > begin and not flags & _WRITTEN:
            groups.append((begin, end - begin, flags))
    return places, groups, end


def _outside(name: str) -> int:
    """The address of a function of the C library or the one for mathematics."""
    address = HERE.function(name)
    if address is None:
        raise Unknown
    return address
