"""What every kernel for GPUs takes of a multiprocessor on every architecture: ``python tests/cuda/resource_table.py``.

It writes ``resources.json``, which tests compare. Architectures can be named; the others keep what they have.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pio.kernels._formats import FORMATS
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda import __path__ as folder
from pio.kernels.cuda import _kept
from pio.kernels.cuda._compiler import ARCHITECTURES, to_cubin
from pio.kernels.cuda._jit import CudaKernel

TABLE = Path(__file__).parent / "resources.json"
COPIES = ("float32_to_float32", "float32_to_bfloat16", "float16_to_int8", "int64_to_float16", "uint8_to_uint8")
KINDS = ("float32", "float16", "bfloat16", "rounded", *FORMATS, *COPIES)
LINKER = "nvidia-nvjitlink"


def kernels() -> Iterator[tuple[str, CudaKernel]]:
    """Return all kernels by name, those for each element type or format once for each."""
    for module in iter_modules(folder):
        made = import_module(f"pio.kernels.cuda.{module.name}")
        for name, value in vars(made).items():
            for kind, kernel in _members(value):
                if isinstance(kernel, CudaKernel) and kernel.__module__ == made.__name__:
                    yield f"{module.name}.{name}{f'[{kind}]' if kind else ''}", kernel


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, PerDtype):
        yield "", value
        return
    for kind in KINDS:
        try:
            yield kind, value[kind]
        except (KeyError, ValueError):  # no such member
            continue


def measured(kernel: CudaKernel, architecture: str) -> dict[str, int]:
    """Return what a kernel takes on an architecture."""
    text = _kept.find(kernel.name, architecture.replace("sm_", "compute_")).code.decode()  # for tests that run it
    found = to_cubin(text, architecture)[1]
    shared = found.shared + kernel.shape.shared
    return {"registers": found.registers, "spilled": found.spilled, "stack": found.stack, "shared": shared}


def linker() -> str:
    """Return the version of what makes machine code; another may take other registers."""
    return metadata.version(LINKER)


def main(architectures: list[str]) -> None:
    """Write the table anew for some architectures, all by default."""
    before = json.loads(TABLE.read_text("utf-8"))["kernels"] if TABLE.exists() else {}
    table: dict[str, dict[str, dict[str, int]]] = {}
    for name, kernel in sorted(kernels()):
        table[name] = before.get(name, {}) | {a: measured(kernel, a) for a in architectures or ARCHITECTURES}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    TABLE.write_text(f'{{"{LINKER}": "{linker()}", "kernels": {{\n{lines}\n}}}}\n', "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
