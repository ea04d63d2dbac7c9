"""Caches of the toy model that lie in memory as those of real ones do, and managers that keep them on disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from alike import PROMPT, SIZE, params
from toy_manager import ids
from toy_model import PagedToyCache, ToyCache, ToyManager, ToyModel

from pio.engine.stored_prefixes import DiskOptions
from pio.tensor import Tensor

LIMIT = 1 << 20
LONGEST = 400  # tokens that a state has room for
POOLS = 3  # of a state


class _Blocks:
    """Blocks in one stretch of memory."""

    def __init__(self, num_blocks: int) -> None:
        self.memory = array("i", [-1]) * (num_blocks * SIZE)
        whole = memoryview(self.memory)
        self.block_bytes = SIZE * self.memory.itemsize
        self.blocks: Any = [whole[i * SIZE : (i + 1) * SIZE] for i in range(num_blocks)]

    def block_memory(self) -> list[Tensor]:
        return [Tensor.from_buffer(self.memory, shape=(-1, SIZE))]

    def copy_block(self, source: int, target: int) -> None:
        self.blocks[target][:] = self.blocks[source]


class DiskToyCache(_Blocks, PagedToyCache):
    """Has blocks alone."""

    def __init__(self, num_blocks: int) -> None:
        PagedToyCache.__init__(self, num_blocks, SIZE)
        _Blocks.__init__(self, num_blocks)


class _States(MutableMapping[int, list[int]]):
    """States of slots in several stretches of memory, of which the first one has their lengths too."""

    def __init__(self, slots: int) -> None:
        self.pools = [array("i", [-1]) * (slots * self.width(i)) for i in range(POOLS)]
        self._slots = slots

    @staticmethod
    def width(pool: int) -> int:
        return LONGEST // POOLS + 1 + (pool == 0)

    def __getitem__(self, slot: int) -> list[int]:
        held = [self.pools[i][slot * self.width(i) : (slot + 1) * self.width(i)] for i in range(POOLS)]
        length = held[0].pop()
        return [held[i % POOLS][i // POOLS] for i in range(max(0, length))]

    def __setitem__(self, slot: int, state: list[int]) -> None:
        for i, token in enumerate(state):
            self.pools[i % POOLS][slot * self.width(i % POOLS) + i // POOLS] = token
        self.pools[0][(slot + 1) * self.width(0) - 1] = len(state)

    def __delitem__(self, slot: int) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._slots))

    def __len__(self) -> int:
        return self._slots


class DiskStatesToyCache(_Blocks, ToyCache):
    """Has states too."""

    def __init__(self, num_blocks: int, state_slots: int) -> None:
        ToyCache.__init__(self, num_blocks, SIZE, state_slots)
        _Blocks.__init__(self, num_blocks)
        self.states: Any = _States(state_slots)
        self.state_bytes = sum(4 * self.states.width(i) for i in range(POOLS))

    def state_memory(self) -> list[Tensor]:
        pools = enumerate(self.states.pools)
        return [Tensor.from_buffer(pool, shape=(-1, self.states.width(i))) for i, pool in pools]


def make(
    folder: Path, model: ToyModel | None = None, num_blocks: int = 40, kept: int | None = None, **options: Any
) -> ToyManager:
    """Return a manager that keeps blocks on disk, and states too where it is said how many are kept in memory."""
    disk = DiskOptions(folder, options.pop("limit", LIMIT), options.pop("identity", b"toy"))
    model = model or ToyModel()
    if kept is None:
        return ToyManager(model, DiskToyCache(num_blocks), disk=disk, **options)
    running = options.get("max_batch_sequences", model.max_batch_sequences)
    return ToyManager(model, DiskStatesToyCache(num_blocks, running + kept), disk=disk, **options)


def fill(folder: Path, *prompts: list[int], **options: Any) -> None:
    """Have some prompts on disk."""
    manager = make(folder, **options)
    for prompt in prompts or (PROMPT,):
        ids(manager.submit(prompt, params(1)))
    manager.close()


def stored(manager: ToyManager) -> Any:
    """Return what of a manager is kept on disk."""
    worker = manager._worker
    assert worker is not None and worker._steps.scheduler.stored is not None
    return worker._steps.scheduler.stored


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def used_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in segments(folder))
