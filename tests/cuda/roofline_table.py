"""What the roofline on paper knows of kernels: ``python tests/cuda/roofline_table.py``, behind ``resource_table.py``.

It writes ``pio/benchmarks/gpu/kernels.json`` from kernels' shapes and from ``resources.json``; a test compares them.
"""

from __future__ import annotations

import json
from typing import Any

import resource_table

from pio.benchmarks.gpu.kernel_table import TABLE


def rows() -> dict[str, dict[str, Any]]:
    """Return what the file is to hold."""
    resources = json.loads(resource_table.TABLE.read_text("utf-8"))["kernels"]
    found: dict[str, dict[str, Any]] = {}
    for name, kernel in sorted(resource_table.kernels()):
        shape, measured = kernel.shape, resources.get(name, {})  # a new one has to be measured first
        found[name] = {
            "block": shape.block,
            "blocks": shape.blocks,
            "shared": shape.shared,
            "registers": {a: taken["registers"] for a, taken in measured.items()},
        }
    return found


def main() -> None:
    """Write the file anew."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows().items())
    TABLE.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    main()
