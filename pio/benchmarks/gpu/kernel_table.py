"""What kernels take of a multiprocessor, as the compiler says: registers and shared memory, and how they are launched.

The numbers lie beside this file; a test compares them with the compiled kernels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from pio.benchmarks.gpu.cards import Card

TABLE: Final = Path(__file__).with_name("kernels.json")
RESERVED: Final = 1 << 10  # bytes of shared memory that the system takes of each block
WARP: Final = 32
UNIT: Final = 256  # registers are given to a warp in such numbers
# Kernels that are two by how many rows there are, and the one that a token of an answer takes.
FEW: Final = {
    "_linears.linears": "_linears.few_linears",
    "experts.experts_linear": "experts.few_experts",
    "head_linear.head_linear": "head_linear.few_heads",
    "head_linear.quantized_head_linear": "head_linear.few_quantized_heads",
}


@dataclass(frozen=True, slots=True)
class Taken:
    """What a kernel takes.

    Attributes:
        block: Threads of a block.
        blocks: Blocks of a multiprocessor that are launched.
        shared: Bytes of shared memory of a block.
        registers: Of a thread on the architecture that was asked for; as many as it may have where ``known`` is False.
        known: Whether the compiler has said it for that architecture.
    """

    block: int
    blocks: int
    shared: int
    registers: int
    known: bool

    def resident(self, card: Card) -> int:
        """Return how many blocks of a multiprocessor run at once, of those that are launched."""
        warps = -(-self.block // WARP)
        registers = warps * -(-self.registers * WARP // UNIT) * UNIT
        fits = (
            card.registers // registers,
            card.shared // (self.shared + RESERVED),
            card.threads // self.block,
        )
        return min(self.blocks, *fits)


@cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text("utf-8"))


def launched(kernel: str) -> str:
    """Return what a token launches where an operation asks for a kernel: of one that is two, that of few rows."""
    name, bracket, kind = kernel.partition("[")
    few = f"{FEW.get(name, name)}{bracket}{kind}"
    return few if few in _table() else kernel


def taken(kernel: str, architecture: str) -> Taken:
    """Return what a kernel takes, such as ``"_linears.linears[int4]"`` on ``"sm_90a"``.

    Raises:
        KeyError: There is no such kernel.
    """
    row = _table()[launched(kernel)]
    found = row["registers"].get(architecture)
    block, blocks = row["block"], row["blocks"]
    most = min(65_536 // (block * blocks), 255) // 8 * 8  # the compiler is told how many blocks are to fit
    return Taken(block, blocks, row["shared"], most if found is None else found, found is not None)
