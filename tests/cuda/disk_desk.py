"""A cache on a GPU of the tests, without a model: somebody computes blocks, gives them back, and finds them on disk."""

from __future__ import annotations

import ctypes
import random
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from pio.cache.format import CacheFormat
from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedCache
from pio.cache.recurrent import RecurrentStates
from pio.device import Device
from pio.dtypes import float16
from pio.engine.cache_manager import CacheManager
from pio.engine.sequence import Sequence
from pio.engine.stored_prefixes import DiskOptions, StoredPrefixes
from pio.memory.budget import MemoryBudget
from pio.ops.attention import BLOCK_SIZE as BLOCK

FORMAT: Final = CacheFormat.keys_and_values(float16, 1, 6)
SOON: Final = 60.0  # seconds that a test waits for what must come


class Desk:
    """A cache on the GPU, what is known of it, and what of that is on disk."""

    def __init__(self, folder: Path, blocks: int = 8, states: int = 0, budget: MemoryBudget | None = None) -> None:
        self.device = Device("cuda")
        self.cache: Any = PagedCache(2, BLOCK * blocks, FORMAT, device=self.device)
        if states:
            recurrent = RecurrentStates(1, 4 + states, ((3, 5), (2, 4, 7)), device=self.device)
            self.cache = HybridCache([True, False, True], self.cache, recurrent)
        self.manager = CacheManager(self.cache, 4)
        self.kept: Any = StoredPrefixes(DiskOptions(folder, 1 << 20, b"toy"), self.manager, self.cache, budget)
        self.store = self.kept.store

    def compute(self, first: int, blocks: int = 1) -> Sequence:
        """Return a sequence whose blocks have bytes that only it has; the GPU will write them."""
        sequence = self.admit(first, blocks)
        for i in range(blocks):
            for number, (address, nbytes) in enumerate(self.kept._items.blocks.pieces(sequence.blocks[i])):
                self._write(address, numbers(nbytes, first, i, number))
        for number, (address, nbytes) in enumerate(self._states(sequence.slot)):
            self._write(address, numbers(nbytes, first, blocks, -number))
        sequence.num_computed = BLOCK * blocks
        self.manager.keep((sequence,))
        return sequence

    def admit(self, first: int, blocks: int = 1) -> Sequence:
        """Return a sequence of its own tokens."""
        tokens = array("i", [(first + 3 * i) % 97 for i in range(BLOCK * blocks + 1)])
        nobody: Any = SimpleNamespace(begin=lambda: None)
        sequence = Sequence(nobody, tokens)
        assert self.manager.admit(sequence, 0)
        return sequence

    def give_back(self, *firsts: int, blocks: int = 1) -> None:
        """Have sequences computed, each of which is over then."""
        for first in firsts:
            self.manager.release(self.compute(first, blocks))

    def write_over(self) -> None:
        """Do what the next step does: it has other bytes in all blocks and slots."""
        for tensor in [*self.cache.block_memory(), *(self.cache.state_memory() if self.cache.state_bytes else ())]:
            self._stream.fill(tensor.address, 0xAB, tensor.nbytes)

    def read(self, first: int, blocks: int = 1) -> int:
        """Return how many tokens somebody finds, whose bytes must be those that were computed."""
        sequence = self.admit(first, blocks)
        before = sequence.num_computed
        self.kept.begin(sequence, counted=True)
        while self.kept.reading:
            self.kept.advance()
        for i in range(before // BLOCK, sequence.num_computed // BLOCK):
            for number, (address, nbytes) in enumerate(self.kept._items.blocks.pieces(sequence.blocks[i])):
                assert self._read(address, nbytes) == numbers(nbytes, first, i, number)
        tokens = sequence.num_computed
        for number, (address, nbytes) in enumerate(self._states(sequence.slot) if tokens else ()):
            assert self._read(address, nbytes) == numbers(nbytes, first, tokens // BLOCK, -number)
        self.manager.release(sequence)
        return tokens

    def written(self) -> None:
        """Wait until a segment is written."""
        assert self.store.wait(SOON)

    def close(self) -> None:
        """End it as a model does that is closed."""
        self.kept.finish(())
        self.cache.free()

    @property
    def _stream(self) -> Any:
        return self.device.stream

    def _states(self, slot: int) -> list[tuple[int, int]]:
        pools = self.kept._items.states if self.cache.state_bytes else ()
        return [piece for pool in pools for piece in pool.pieces(slot)]

    def _write(self, address: int, held: bytes) -> None:
        memory = ctypes.create_string_buffer(held, len(held))
        self._stream.copy_in(address, ctypes.addressof(memory), len(held))

    def _read(self, address: int, nbytes: int) -> bytes:
        memory = ctypes.create_string_buffer(nbytes)
        self._stream.copy_out(ctypes.addressof(memory), address, nbytes)
        return memory.raw


def numbers(nbytes: int, *told: int) -> bytes:
    """Return bytes that only these have."""
    return random.Random(str(told)).randbytes(nbytes)


def found(folder: Path, *firsts: int, **options: Any) -> list[int]:
    """Return what a process finds later."""
    desk = Desk(folder)
    try:
        return [desk.read(first, **options) for first in firsts]
    finally:
        desk.close()


def segments(folder: Path) -> list[Path]:
    """Return the files."""
    return list(folder.glob("*.safetensors"))
