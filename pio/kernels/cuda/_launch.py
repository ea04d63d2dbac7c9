"""Kernels by name for a GPU: what ``launcher`` gives operations whose tensors lie there.

A kernel is called as the CPU's is, with addresses of the GPU's memory. The last value that parallel kernels of a CPU
take, over how many threads they split, says nothing here: the grid is as large as the GPU.
"""

from __future__ import annotations

import logging
import struct
from typing import Any, Final, Protocol

from pio.errors import OutOfMemoryError
from pio.kernels import jobs
from pio.kernels._image import Name
from pio.kernels._missing import MissingKernel, NoCompiler, note
from pio.kernels.cuda import _kept
from pio.kernels.cuda._variants import VARIANTS, ByRows

_MOST: Final = 300  # characters of a compiler's message
_log: Final = logging.getLogger("pio")


class Target(Protocol):
    """Where kernels run: a stream of a GPU.

    Attributes:
        kept: What lives as long as it does, by a name.
    """

    kept: dict[Any, Any]

    @property
    def architecture(self) -> str:
        """What code is made for."""
        ...

    @property
    def multiprocessors(self) -> int:
        """How many the GPU has."""
        ...

    def graph(self, launches: Any) -> Any:
        """Return what does launches in one call of its ``run``."""
        ...

    def load(self, code: bytes, entry: str, shared: int) -> int:
        """Return the handle of a kernel."""
        ...

    def wait(self) -> None:
        """Wait until all is done; raises where the GPU cannot be used any more."""
        ...

    def launch(self, launch: Any) -> None:
        """Put a kernel into the stream: handle, grid, block, shared bytes, letters and values of its parameters."""
        ...


class Module:
    """The kernels of a module, for one target."""

    def __init__(self, name: str, target: Target) -> None:
        """Name the module of the CPU's kernels, such as ``pio.kernels.norm``."""
        self._name, self._target = name.replace("pio.kernels.", "pio.kernels.cuda.", 1), target

    def __getattr__(self, name: str) -> Kernels:
        if name.startswith("__"):
            raise AttributeError(name)
        found = Kernels(self._name, name, self._target)
        setattr(self, name, found)
        return found


class Kernels:
    """A kernel, or one for each element type."""

    def __init__(self, module: str, name: str, target: Target) -> None:
        """Name it; nothing is loaded yet."""
        self._module, self._name, self._target = module, name, target
        self._made: dict[str, Kernel | Chosen] = {}
        self._failed: dict[str, str] = {}  # why there is none
        self._unmade = set[str]()  # of these what there would be, and cannot be made for this GPU
        self._by = VARIANTS.get(f"{module}.{name}")

    def __getitem__(self, dtype: str) -> Kernel | Chosen | jobs.Absent:
        """Return the kernel for an element type; while kernels are listed, what stands for one that is not kept yet.

        Raises:
            MissingKernel: It cannot be made for this GPU; the first time that is logged as a warning, too.
        """
        found = self._made.get(dtype)
        if found is None and self._by is not None:
            found = self._made[dtype] = Chosen(self._by, self._module, dtype, self._target)
        if found is None:
            name = Name(self._module, self._name, dtype)
            if dtype in self._failed:
                if dtype in self._unmade:
                    note(name.full)  # also where somebody else has found that out
                raise MissingKernel(self._failed[dtype])
            if jobs.is_listing():
                wanted = _kept.Source(name, self._target.architecture)
                if not wanted.is_kept():
                    return jobs.Absent(wanted)
            found = self._made[dtype] = self._make(name)
        return found

    def _make(self, name: Name) -> Kernel:
        try:
            return Kernel(name, self._target)
        except (OutOfMemoryError, MemoryError, NoCompiler):
            raise
        except Exception as error:  # whatever a compiler, a linker or a driver says of this kernel
            self._target.wait()  # a GPU that is lost says so here, and it was not the kernel
            why = f"the kernel {name.full} cannot be made for {self._target.architecture}: {_first_words(error)}"
            if isinstance(error, MissingKernel):  # there is none anywhere
                why = str(error)
            else:
                self._unmade.add(name.dtype)
                note(name.full)
            self._failed[name.dtype] = why
            _log.warning("%s; what needs it runs on the CPU, over copies, which is slow", why)
            raise MissingKernel(why) from error

    def __call__(self, *values: Any) -> None:
        """Call the kernel, which there is only one of."""
        self[""](*values)


class Chosen:
    """Two kernels that stand for one, see ``_variants``; one that no launch has taken is not loaded."""

    def __init__(self, by: ByRows, module: str, dtype: str, target: Target) -> None:
        """Name them; nothing is loaded yet."""
        self._by, self._dtype = by, dtype
        self._kernels = {name: Kernels(module, name, target) for name in by.names}

    def __call__(self, *values: Any) -> None:
        """Call the one that is for as many rows; while kernels are listed both, for another step has other rows."""
        for name in self._by.names if jobs.is_listing() else self._by.taken(values):
            self._kernels[name][self._dtype](*values)


class Kernel:
    """A kernel that is ready to run on one target."""

    def __init__(self, name: Name, target: Target) -> None:
        """Have it loaded, compiled before where it is not kept."""
        kept = _kept.find(name, target.architecture)
        self._name, self._target = name.full, target
        self._pack, self._count = struct.Struct(f"={kept.letters}").pack, len(kept.letters)
        handle = target.load(kept.code, kept.entry, kept.shared)
        self._fixed = handle, kept.blocks * target.multiprocessors, kept.block, kept.shared, kept.letters

    def __call__(self, *values: Any) -> None:
        """Put it into the target's stream; a number of threads behind its arguments is not used."""
        if jobs.is_listing():  # it is loaded by now, which is what a list is for
            return
        launch = (*self._fixed, self._pack(*values[: self._count]))
        jobs.record_launch(self._name, self._target, launch)
        self._target.launch(launch)


def _first_words(error: Exception) -> str:
    """Return what an error says, on one line: compilers explain themselves on many."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:_MOST]}{'…' * (len(said) > _MOST)}"
