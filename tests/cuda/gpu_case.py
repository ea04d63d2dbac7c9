"""Runs a kernel for GPUs where there is none: what the compiler made of it, step by step, on tensors here."""

# what needs numba-cuda is imported when that was found

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from functools import cache, partial
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("numba.cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')
cuda = pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from ptx import Memory, Module

from pio.dtypes import int64
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda import _kept
from pio.kernels.cuda._jit import CudaKernel, Variants
from pio.tensor import Tensor

ARCHITECTURE = "sm_90a"


@cache
def _module(kernel: CudaKernel, architecture: str) -> tuple[Module, str]:
    """Return what the compiler made of a kernel: of those of pio as it is kept on disk, for all processes of a run."""
    if _is_known(kernel):
        kept = _kept.find(kernel.name, architecture.replace("sm_", "compute_"))
        return Module(kept.code.decode()), kept.entry
    text, entry = kernel.ptx(architecture)
    return Module(text), entry


def _is_known(kernel: CudaKernel) -> bool:
    """Return whether the kernel is found by its name: a test may have made it."""
    module, name, dtype = kernel.name
    found = getattr(import_module(module), name, None) if module.startswith("pio.kernels.cuda.") else None
    return (found[dtype] if isinstance(found, PerDtype) else found) is kernel


def run(
    kernel: CudaKernel | Variants,
    *values: Tensor | float,
    touching: Sequence[Tensor] = (),
    reading: Sequence[Tensor] = (),
    multiprocessors: int = 2,
    architecture: str = ARCHITECTURE,
) -> None:
    """Run a kernel to its end.

    Args:
        kernel: What to run; of several that stand for one those that a launch takes.
        values: Its arguments; a tensor stands for its address, and may be read and written.
        touching: Tensors that the kernel finds by itself, such as by addresses in a record.
        reading: Those of all tensors that it must not write.
        multiprocessors: Of the GPU: the grid grows with them, and what is computed must not depend on them.
        architecture: What to compile for.
    """
    memory, arguments = Memory(), list[Any]()
    protected = {id(tensor.storage) for tensor in reading}
    tensors = [v for v in (*values, *touching, *reading) if isinstance(v, Tensor)]
    held = dict[int, Tensor]()
    for tensor in tensors:
        held.setdefault(tensor.storage.address, tensor)
    for tensor in held.values():
        storage = tensor.storage
        if storage.nbytes:
            memory.add(storage.address, storage.nbytes, writable=id(storage) not in protected, owner=tensor)
    for value in values:
        arguments.append(value.address if isinstance(value, Tensor) else value)
    for each in _taken(kernel, arguments):
        module, entry = _module(each, architecture)
        shape = each.shape
        module.launch(
            entry,
            multiprocessors * shape.blocks,
            shape.block,
            arguments[: len(each.letters)],
            shape.shared,
            memory=memory,
        )


def _taken(kernel: CudaKernel | Variants, values: Sequence[Any]) -> list[CudaKernel]:
    return kernel.taken(*values) if isinstance(kernel, Variants) else [kernel]


def relative_error(found: Tensor, wanted: Sequence[float]) -> float:
    """Return how far numbers are from others, by the length of both as vectors."""
    flat = found.reshape(-1).tolist()
    assert len(flat) == len(wanted)
    far = math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(flat, wanted, strict=True)))
    return far / max(math.sqrt(math.fsum(b * b for b in wanted)), 1e-30)


def bytes_of(tensor: Tensor) -> bytes:
    """Return a contiguous tensor's bytes."""
    return ctypes.string_at(tensor.address, tensor.nbytes)


def numbers(*shape: int, seed: int = 1, dtype: str = "float32") -> Tensor:
    """Return a tensor of numbers from -2 to 2 in no order."""
    values = [((i * 7919 + seed * 104729) % 2003 - 1001) / 500 for i in range(math.prod(shape))]
    return Tensor.from_list(values, dtype).reshape(*shape)


def words(*values: float) -> Tensor:
    """Return a record in memory that a GPU reads: whole numbers and float64, eight bytes each."""
    packed = struct.pack("".join("d" if type(v) is float else "q" for v in values), *values)
    return Tensor.from_list(list(struct.unpack(f"{len(values)}q", packed)), int64)


class Operations:
    """The kernels of a GPU in place of the CPU's under an operation: its own checks, records and order of arguments.

    Use it as a context: ``with Operations("conv", image, weight): ops.conv2d(image, weight)``.
    """

    def __init__(self, name: str, *tensors: Tensor, multiprocessors: int = 2) -> None:
        """Name the module that operation and kernels have, and the tensors that the operation is given."""
        self._operation, self._kernels = import_module(f"pio.ops.{name}"), import_module(f"pio.kernels.cuda.{name}")
        self._multiprocessors = multiprocessors
        self._held = dict[int, tuple[int, Any]]()
        self._patch = pytest.MonkeyPatch()
        for tensor in tensors:
            self._hold(tensor)

    def _hold(self, tensor: Tensor) -> Tensor:
        self._held[tensor.storage.address] = tensor.storage.nbytes, tensor
        return tensor

    def __enter__(self) -> Operations:
        for name in ("empty", "zeros"):
            made = getattr(Tensor, name)
            self._patch.setattr(Tensor, name, lambda *a, _made=made, **b: self._hold(_made(*a, **b)))
        self._patch.setattr(self._operation, "kernels", self)
        if hasattr(self._operation, "record"):
            self._patch.setattr(self._operation, "record", lambda *values, device=None: self._hold(words(*values)))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def on(self, device: str) -> Operations:
        """Return the kernels for a tensor's device: these."""
        return self

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self._kernels, name)
        if isinstance(kernel, CudaKernel):
            return partial(self._run, kernel)
        return PerDtype(lambda dtype: partial(self._run, kernel[dtype]))

    def _run(self, kernel: CudaKernel | Variants, *values: float) -> None:
        memory = Memory()
        for address, (nbytes, owner) in self._held.items():
            if nbytes:
                memory.add(address, nbytes, writable=True, owner=owner)
        for each in _taken(kernel, values):
            module, entry = _module(each, ARCHITECTURE)
            shape, grid = each.shape, self._multiprocessors * each.shape.blocks
            given = [*values[: len(each.letters)]]  # a last one would say over how many threads a CPU splits
            module.launch(entry, grid, shape.block, given, shape.shared, memory=memory)
