"""What GPUs are, as their makers and those who have measured them say: all that a roofline on paper needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pio.errors import ConfigError

READ_SHARE: Final = 0.92  # of the bandwidth on the data sheet that a kernel which does nothing but read reaches
MMA_SHARE: Final = {9: 0.62}  # of the peak that mma.sync reaches, by the capability: all of Hopper's takes wgmma


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU.

    Attributes:
        name: As its maker calls it.
        architecture: What code is made for.
        multiprocessors: How many it has.
        nbytes: Of its memory.
        bandwidth: Bytes a second that it reads, by its data sheet.
        clock: Of a multiprocessor under load, in hertz.
        tensor: Operations a second of bfloat16 in tensor cores with sums in float32, dense, by its data sheet; of int8
            there are twice as many.
        registers: Of a multiprocessor.
        shared: Bytes of shared memory of a multiprocessor; a block takes 1 KiB beside its own.
        threads: Of a multiprocessor, at most.
        far: Seconds until a number comes from memory, while others are read: assumed, measured ones differ by a fifth.
        near: Seconds until one comes from the second-level cache: assumed likewise.
    """

    name: str
    architecture: str
    multiprocessors: int
    nbytes: float
    bandwidth: float
    clock: float
    tensor: float
    registers: int = 65_536
    shared: int = 228 << 10
    threads: int = 2048
    far: float = 0.65e-6
    near: float = 0.25e-6

    @property
    def reads(self) -> float:
        """Bytes a second that a kernel can read which does nothing else."""
        return READ_SHARE * self.bandwidth

    @property
    def port(self) -> float:
        """Bytes a second that one multiprocessor takes from the second-level cache: 64 each cycle."""
        return 64 * self.clock

    @property
    def multiplies(self) -> float:
        """Operations a second of bfloat16 by mma.sync."""
        return MMA_SHARE.get(int(self.architecture[3:].rstrip("a")) // 10, 0.9) * self.tensor


CARDS: Final = {
    "h100": Card("H100 SXM", "sm_90a", 132, 80e9, 3.35e12, 1.755e9, 989e12),
    "h200": Card("H200", "sm_90a", 132, 141e9, 4.8e12, 1.755e9, 989e12),
    "rtx5070": Card(
        "RTX 5070 12 GB", "sm_120a", 48, 12e9, 0.672e12, 2.5e9, 61.7e12, shared=100 << 10, threads=1536, far=0.6e-6,
        near=0.2e-6,
    ),
    "rtx4070": Card(
        "RTX 4070 12 GB", "sm_89", 46, 12e9, 0.504e12, 2.48e9, 58.3e12, shared=100 << 10, threads=1536, far=0.55e-6,
        near=0.18e-6,
    ),
}  # fmt: skip


def card(name: str) -> Card:
    """Return a GPU by its key in CARDS.

    Raises:
        ConfigError: There is none of that name.
    """
    found = CARDS.get(name.lower())
    if found is None:
        raise ConfigError(f"--gpu {name!r:.40}: no data of such a GPU; there are {', '.join(CARDS)}")
    return found
