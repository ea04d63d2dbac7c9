"""Grid and block of a launch, and where each lane stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .errors import LaunchError

Array = np.ndarray[Any, Any]
WARP = 32
_GRID = (2**31 - 1, 65535, 65535)
_BLOCK = (1024, 1024, 64)


def _three(value: int | Sequence[int], limits: tuple[int, int, int], what: str) -> tuple[int, int, int]:
    given = (value,) if isinstance(value, int) else tuple(value)
    sizes = (*given, 1, 1)[:3]
    if not 1 <= len(given) <= 3 or any(not 1 <= n <= most for n, most in zip(sizes, limits, strict=True)):
        raise LaunchError(f"{what} {given}: 1 to 3 sizes, each from 1 to {limits}")
    return sizes[0], sizes[1], sizes[2]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a launch. Lanes of a block are padded to whole warps."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]

    @staticmethod
    def of(grid: int | Sequence[int], block: int | Sequence[int]) -> Geometry:
        found = Geometry(_three(grid, _GRID, "grid"), _three(block, _BLOCK, "block"))
        if found.threads > 1024:
            raise LaunchError(f"block {found.block} has {found.threads} threads; at most 1024")
        return found

    @property
    def threads(self) -> int:
        return prod(self.block)

    @property
    def blocks(self) -> int:
        return prod(self.grid)

    @property
    def lanes(self) -> int:
        """Lanes of a block, those without thread included."""
        return -(-self.threads // WARP) * WARP

    def coordinates(self, number: int, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
        return number % sizes[0], number // sizes[0] % sizes[1], number // (sizes[0] * sizes[1])

    def name(self, lane: int, first: int) -> str:
        """Say which thread a lane of a batch is, whose first block has a number."""
        block, thread = divmod(lane, self.lanes)
        at, who = self.coordinates(first + block, self.grid), self.coordinates(thread, self.block)
        return f"block {at}, thread {who}, lane {thread % WARP} of warp {thread // WARP}"

    def specials(self, blocks: int, shared: tuple[int, int]) -> dict[str, Array]:
        """Return the special registers of a batch, uint32 [lanes]; those of blocks are set by place()."""
        thread = np.arange(self.lanes, dtype="u4")
        lane = thread % WARP
        bit = np.uint32(1) << lane
        one: dict[str, Array | int] = {
            "%tid.x": thread % self.block[0],
            "%tid.y": thread // self.block[0] % self.block[1],
            "%tid.z": thread // (self.block[0] * self.block[1]),
            "%laneid": lane,
            "%warpid": thread // WARP,
            "%nwarpid": self.lanes // WARP,
            "%lanemask_eq": bit,
            "%lanemask_lt": bit - 1,
            "%lanemask_le": bit | (bit - 1),
            "%lanemask_gt": ~(bit | (bit - 1)),
            "%lanemask_ge": ~(bit - 1),
            "%gridid": 0,
            "%smid": 0,
            "%nsmid": 1,
            "%dynamic_smem_size": shared[1],
            "%total_smem_size": sum(shared),
            "%cluster_ctarank": 0,
            "%cluster_nctarank": 1,
            "%is_explicit_cluster": 0,
        }
        for n, axis in enumerate("xyz"):
            one[f"%ntid.{axis}"] = self.block[n]
            one[f"%nctaid.{axis}"] = self.grid[n]
            one[f"%cluster_ctaid.{axis}"] = 0
            one[f"%cluster_nctaid.{axis}"] = 1
        made = {name: np.tile(np.broadcast_to(np.asarray(x, "u4"), self.lanes), blocks) for name, x in one.items()}
        made |= {f"{name}.{axis}": np.zeros(blocks * self.lanes, "u4") for name in ("%ctaid",) for axis in "xyz"}
        return made

    def place(self, specials: dict[str, Array], numbers: Array) -> None:
        """Set the special registers that say which block a lane is in; numbers: one per block."""
        number = np.repeat(numbers.astype("u8"), self.lanes)
        x, y, _ = self.grid
        specials["%ctaid.x"][:] = number % x
        specials["%ctaid.y"][:] = number // x % y
        specials["%ctaid.z"][:] = number // (x * y)


SPECIALS = frozenset(Geometry((1, 1, 1), (1, 1, 1)).specials(1, (0, 0)))
