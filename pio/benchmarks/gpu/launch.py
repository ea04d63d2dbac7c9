"""One kind of launch in a decoded token: how it is cut into items, what each reads, and how long it must take."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from pio.benchmarks.gpu.cards import Card
from pio.benchmarks.gpu.kernel_table import WARP, Taken, taken

TENSOR: Final = {"bfloat16": 1.0, "int8": 2.0, "tf32": 0.5}  # products a second against those of bfloat16


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch.

    Attributes:
        kernel: Its name in ``kernel_table``.
        what: What it is there for.
        items: Pieces of work that blocks take in turn.
        item_bytes: What the largest of them reads from memory, or writes there: weights, caches, states. Activations
            stay in the second-level cache.
        nbytes: Of all items.
        far: Waits for memory of an item that come one behind the other.
        near: Waits for the second-level cache, and for other warps, of the launch and of an item, likewise.
        beside: Waits likewise that go on while an item waits for memory the first time.
        once: Whether only the first item of a block has these.
        flight: Bytes that a warp asks for before it waits.
        products: Multiply-adds of tensor cores, those of rows that are not there included.
        arithmetic: Of what type they are.
        times: How often a token has such a launch.
    """

    kernel: str
    what: str
    items: int
    item_bytes: float = 0.0
    nbytes: float = 0.0
    far: int = 0
    near: int = 2
    beside: int = 0
    once: bool = False
    flight: int = 0
    products: float = 0.0
    arithmetic: str = "bfloat16"
    times: int = 1

    def taken(self, card: Card) -> Taken:
        """Return what the kernel takes of a multiprocessor."""
        return taken(self.kernel, card.architecture)

    def blocks(self, card: Card) -> int:
        """Return how many blocks run at once."""
        return self.taken(card).resident(card) * card.multiprocessors

    def in_flight(self, card: Card) -> float:
        """Return the bytes that a multiprocessor has under way."""
        found = self.taken(card)
        return found.resident(card) * ceil(found.block / WARP) * self.flight

    def needed_in_flight(self, card: Card) -> float:
        """Return the bytes that a multiprocessor must have under way to read its share of the bandwidth (Little)."""
        return card.far * card.reads / card.multiprocessors

    def busy(self, card: Card) -> float:
        """Return which part of the blocks' turns do an item: the rest is a tail, or blocks without any."""
        blocks = self.blocks(card)
        return self.items / (ceil(self.items / blocks) * blocks)

    def floor(self, card: Card) -> float:
        """Return the seconds that its bytes take at the speed at which a kernel can read at best."""
        return self.nbytes / card.reads

    def seconds(self, card: Card) -> float:
        """Return the seconds that it takes at least, from its first instruction to its last.

        Blocks take items in turns. A turn ends when the longest of three things does: the bytes of all its items at the
        GPU's bandwidth; those of a multiprocessor by its port; the waits of one item. The last turn may have few items.
        """
        blocks = self.blocks(card)
        whole, left = divmod(self.items, blocks)
        turns = whole * self._turn(blocks, card) + (self._turn(left, card) if left else 0.0)
        turns += self._longer(card) if self.once else 0.0
        speed = card.multiplies * TENSOR[self.arithmetic]
        shares = min(self.items, card.multiprocessors) / card.multiprocessors  # of all tensor cores
        return max(turns, 2 * self.products / (speed * shares))

    def _longer(self, card: Card) -> float:
        """Return by how much what goes on beside the first wait for memory takes longer than that."""
        return max(self.beside * card.near - card.far * min(self.far, 1), 0.0)

    def _turn(self, items: int, card: Card) -> float:
        waits = self.far * card.far + self.near * card.near + (0.0 if self.once else self._longer(card))
        together = ceil(items / card.multiprocessors) * self.item_bytes / card.port
        return max(waits, items * self.item_bytes / card.reads, together)
