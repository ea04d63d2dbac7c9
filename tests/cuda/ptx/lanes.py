"""All lanes of some blocks that run together: registers, who is active, where each one stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .geometry import WARP, Geometry
from .memory import Memory
from .spaces import Space

if TYPE_CHECKING:
    from .program import Program

Array = np.ndarray[Any, Any]
RUNS, WAITS, PARKED, EXITED = 0, 1, 2, 3  # waits at a barrier; parked at an operation of warps until others come
NOWHERE: Final = 2**62


class Lanes:
    """A batch of blocks.

    values[slot] is a register, a constant or a special register as an array over lanes. The lanes in mask run:
    count of them; lanes is None where all do, else their numbers; whole says that no other lane is alive, so that a
    register may be written without regard to the mask.
    """

    def __init__(
        self, program: Program, geometry: Geometry, blocks: int, dynamic: int, params: bytes, races: bool, strict: bool
    ):
        self.program, self.geometry, self.blocks = program, geometry, blocks
        self.size = blocks * geometry.lanes
        self.warps = self.size // WARP
        every = np.arange(self.size)
        self.block_of = every // geometry.lanes
        shared = program.layout.shared
        self.specials = geometry.specials(blocks, (shared.nbytes, dynamic))
        warp_of = every % geometry.lanes // WARP
        nobody = np.zeros(self.size, "i8")
        self.spaces = {
            "shared": Space(
                "shared",
                blocks,
                shared.nbytes + dynamic,
                self.block_of,
                strict=strict,
                warp_of=warp_of if races else None,
            ),
            "local": Space("local", self.size, program.layout.local.nbytes, every, strict=False),
            "param": Space("parameter", 1, len(params), nobody, strict=False),
            "frame": Space("parameter", self.size, program.layout.frame.nbytes, every, strict=True),
        }
        self.banks = {w: np.zeros((n, self.size), f"u{w}") for w, n in program.registers.counts.items()}
        self.values: list[Array] = [slot.view_in(self) for slot in program.registers.slots]
        slots = zip(program.registers.slots, self.values, strict=True)
        self._parameters = [(slot, value) for slot, value in slots if slot.kind == "parameter"]
        self.mask = np.ones(self.size, "?")
        self.count = self.size
        self.lanes: Array | None = None
        self.whole = True
        self._complete: tuple[Array, Array | None] = self.mask, np.arange(self.warps)
        self.pcs = np.zeros(self.size, "i8")
        self.status = np.zeros(self.size, "u1")
        self.barrier = np.zeros(self.size, "i8")  # the barrier that a lane waits at
        self.expected = np.zeros(self.size, "i8")  # how many lanes it waits for
        self.arrived = np.zeros((blocks, 16), "i8")  # by bar.arrive, at each barrier
        self.votes = np.zeros(self.size, "?")  # predicates of bar.red
        self.returns: dict[str, Array] = {}
        self.copies: list[Any] = []  # asynchronous copies, the oldest first
        self.groups = np.zeros(self.size, "i8")  # of copies that each lane has committed
        self.numbers = np.zeros(self.size, "u4")  # of the blocks in the grid, by lane
        self.first = 0
        self.steps = self.clock = 0
        self.memory = Memory()
        self.watched: Array | None = None

    def begin(self, first: int, blocks: int, params: bytes, memory: Memory) -> None:
        """Set out from the first instruction with some blocks; those of the batch that are not there have exited."""
        self.first, self.memory = first, memory
        numbers = np.arange(first, first + self.blocks)
        self.geometry.place(self.specials, numbers)
        self.numbers[:] = np.repeat(numbers, self.geometry.lanes)
        self.watched = self.numbers if memory.watches_writes else None
        for bank in self.banks.values():
            bank.view("u1").fill(0xA5 if bank.dtype.itemsize > 1 else 0)
        for name in ("shared", "local", "frame"):
            self.spaces[name].reset()
        self.spaces["param"].bytes[: len(params)] = np.frombuffer(params, "u1")
        for slot, value in self._parameters:
            slot.fill(value, params)
        thread = np.arange(self.size) % self.geometry.lanes
        there = (thread < self.geometry.threads) & (self.block_of < blocks)
        self.status[:] = np.where(there, RUNS, EXITED)
        self.pcs[:] = self.program.start
        self.arrived.fill(0)
        self.copies.clear()
        self.groups.fill(0)

    def activate(self, mask: Array, whole: bool) -> None:
        """Let the lanes of a mask run."""
        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self.lanes = None if self.count == self.size else np.flatnonzero(mask)
        self.whole = whole

    def choose(self, turn: int) -> tuple[int, int] | None:
        """Choose lanes to run: those with the lowest program counter, or another group on its turn.

        Returns their program counter and the next one at which others stand, or None where no lane can run.
        """
        status = self.status
        runs = status == RUNS
        if not np.count_nonzero(runs):
            return None
        stands = self.pcs[runs]
        pc = int(stands.min())
        if turn:
            groups = np.unique(stands)
            pc = int(groups[turn % len(groups)])
        ready = runs | (status == PARKED)
        here = self.pcs == pc
        mask = ready & here
        alive = status != EXITED
        self.activate(mask, not np.count_nonzero(alive & ~mask))
        status[mask] = RUNS
        others = self.pcs[ready & (self.pcs > pc)]
        return pc, int(others.min()) if len(others) else NOWHERE

    def active(self, array: Array) -> Array:
        """Return the elements of active lanes."""
        return array if self.lanes is None else array[self.lanes]

    def complete_warps(self) -> Array | None:
        """Return the numbers of active warps if all their lanes are active, else None."""
        mask, found = self._complete
        if mask is not self.mask:
            there = np.flatnonzero(self.by_warp(self.mask).any(axis=1))
            found = there if len(there) * WARP == self.count else None
            self._complete = self.mask, found
        return found

    def put(self, slot: int, value: Array) -> None:
        """Write a register of the active lanes; value is over all lanes."""
        if self.whole:
            self.values[slot][...] = value
        else:
            np.copyto(self.values[slot], value, casting="unsafe", where=self.mask)

    def publish(self) -> None:
        """Let other blocks see what the blocks of active lanes wrote to global memory."""
        if self.watched is not None:
            self.memory.publish(np.unique(self.active(self.watched)))

    def by_warp(self, array: Array) -> Array:
        """Return an array as [warps, 32]."""
        return array.reshape(self.warps, WARP)

    def words_by_warp(self) -> Array:
        """Return all registers of 32 bits as [registers, warps, 32]."""
        return self.banks[4].reshape(-1, self.warps, WARP)

    def name(self, lane: int) -> str:
        return self.geometry.name(lane, self.first)
