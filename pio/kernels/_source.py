"""Where the machine code of a kernel comes from: the folder of compiled kernels, or else the compiler."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any, cast

from pio.kernels import _engine, _image, _watch
from pio.kernels._image import Compiled, Name
from pio.kernels._per_dtype import PerDtype
from pio.shelter import import_whole

_numbers = itertools.count(1)


def find(name: Name) -> Any:
    """Return the kernel of that name as its module defines it; importing that imports the compiler."""
    import_whole("numba")
    found = getattr(import_whole(name.module), name.name)
    return found[name.dtype] if name.dtype else found


class Source:
    """The machine code of one kernel.

    Attributes:
        name: How another process finds the kernel.
        known: The machine code, once it has been read or made.
        kernel: What uses this source: it can be kept if its module has it under its name.
    """

    __slots__ = ("_make", "kernel", "known", "name")

    def __init__(
        self,
        name: Name,
        make: Callable[[Source], Compiled] | None = None,
        kernel: object = None,
        known: Compiled | None = None,
    ) -> None:
        """Make a source; nothing is read or compiled yet.

        Args:
            name: The kernel's name.
            make: Compiles the kernel, unless it is known by then, and keeps it; None where only its module could.
            kernel: What uses this source.
            known: The machine code, where it has been read already.
        """
        self.name = name
        self.known = known
        self._make = make
        self.kernel = kernel

    def can_be_kept(self) -> bool:
        """Return whether the folder of compiled kernels holds it or could: another process must be able to find it."""
        if self._make is not None:
            found: Any = getattr(sys.modules.get(self.name.module), self.name.name, None)
            if isinstance(found, PerDtype) and self.name.dtype:
                found = cast("PerDtype[Any]", found)[self.name.dtype]
            if found is not self.kernel:
                return False
        return _image.can_hold(self.name)

    def is_kept(self) -> bool:
        """Return whether the folder holds it, or can never hold it."""
        return self.known is not None or not self.can_be_kept() or _image.holds(self.name)

    def symbol(self) -> str:
        """Return the name for the function in the object file, one that no other kernel of this process has."""
        kept = _image.symbol_of(self.name) if self.can_be_kept() else None
        return kept or f"pio_{self.name.full}_{next(_numbers)}"

    def load(self) -> tuple[int, Compiled]:
        """Return the address of the machine code, and how it is called; it is compiled where the folder lacks it."""
        known = self.known
        if known is None and self.can_be_kept():
            known = self.known = _image.read(self.name)
        if known is not None:
            address = _engine.load(known.symbol, known.code)
            _watch.say_loaded(self.name.full)
            return address, known
        made = self.compile()
        return _engine.load(made.symbol, made.code), made

    def compile(self) -> Compiled:
        """Compile it now, and keep it."""
        if self._make is None:
            return find(self.name).source.compile()
        return self._make(self)
