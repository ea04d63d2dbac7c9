"""Kernels by name: operations call them without importing their modules, nor the compiler that these import.

``module("rope").on(x.device)`` has the kernels for the device of a tensor: those of this file for the CPU, and for a
GPU those that ``cuda/_launch`` finds by the same names.

Where the folder of compiled kernels holds a kernel, its machine code is loaded and called. Elsewhere the module is
imported and the kernel compiled; and where kernels run as Python or check every index, its function is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from pio.kernels import _image, _settings, jobs
from pio.kernels._image import Name
from pio.kernels._missing import MissingKernel
from pio.kernels._source import Source, find
from pio.shelter import import_whole


class OnDevice(Protocol):
    """What says where kernels run: a device, whose stream is None on the CPU, and on a GPU takes launches."""

    @property
    def stream(self) -> Any:
        """See ``cuda/_launch.Target``."""
        ...

    @property
    def off(self) -> frozenset[str]:
        """Which kernels of a GPU are switched off."""
        ...


def module(name: str, switch: str | None = None) -> Module:
    """Return what stands for a module of ``pio.kernels`` in an operation: ``module("rope").rope(...)``.

    Args:
        name: Of the module.
        switch: By what name it is switched off on a GPU, where that is another.
    """
    return Module(f"pio.kernels.{name}", switch or name)


class Module:
    """The kernels of a module, each found when it is first asked for."""

    def __init__(self, name: str, switch: str) -> None:
        self._name, self._switch = name, switch

    def on(self, device: OnDevice) -> Any:
        """Return the kernels for a device: of the CPU these, of a GPU a ``cuda/_launch.Module``.

        Raises:
            MissingKernel: They are switched off there.
        """
        target = device.stream
        if target is None:
            return self
        if self._switch in device.off:
            raise MissingKernel(f"the kernels of {self._switch} are switched off on {device}")
        found = target.kept.get(self._name)
        if found is None:
            made = import_whole("pio.kernels.cuda._launch").Module(self._name, target)
            found = target.kept.setdefault(self._name, made)
        return found

    def __getattr__(self, name: str) -> Kernel:
        if name.startswith("__"):
            raise AttributeError(name)
        found = Kernel(self._name, name, partial(setattr, self, name))
        setattr(self, name, found)  # so that this function is not called again
        return found


class Kernel:
    """A kernel, or one for each element type: ``kernel(...)`` or ``kernel["float16"](...)``."""

    def __init__(self, module: str, name: str, replace: Callable[[Any], None]) -> None:
        """Name a kernel.

        Args:
            module: Where it is defined.
            name: Its name there.
            replace: Told what is called in place of this object where there is only one such kernel.
        """
        self._module = module
        self._name = name
        self._replace = replace
        self._found: dict[str, Any] = {}

    def __getitem__(self, dtype: str) -> Any:
        """Return the kernel for an element type; for none where there is only one."""
        found = self._found.get(dtype)
        if found is None:
            found = _found(Name(self._module, self._name, dtype))
            if not isinstance(found, jobs.Absent):
                self._found[dtype] = found
        return found

    def __call__(self, *values: Any) -> Any:
        """Call the kernel, which there is only one of."""
        only = self[""]
        result = only(*values)
        if not isinstance(only, jobs.Absent):
            self._replace(only.prepare() if isinstance(only, jobs.Serial) else only)
        return result


def _found(name: Name) -> Any:
    """What to call for a name: a ``Job``, a ``Serial``, an ``Absent``, or where nothing is compiled a function."""
    if not _settings.PLAIN and name.module not in sys.modules:
        kept = _image.read(name)
        if kept is not None:
            return jobs.of(name, kept)
        if jobs.is_listing() and _image.can_hold(name):
            return jobs.Absent(Source(name))
    return find(name)
