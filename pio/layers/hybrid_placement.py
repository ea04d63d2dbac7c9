"""A model on a GPU that has too little memory for it: some weights stay here, to be copied in each step or computed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol, cast

from pio import ops
from pio.device import Device, default_device
from pio.errors import CheckpointError, DeviceError
from pio.layers.copied_experts import CopiedExperts, are_few
from pio.layers.host_experts import HostExperts, Mail
from pio.layers.placement import Below, ExpertsBlock, Placement, S, SizedExpertsBlock, Turn, rounded
from pio.layers.placement_plan import Plan
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.memory.budget import MemoryBudget
from pio.memory.layout import row_major
from pio.memory.storage import Storage
from pio.tensor import Tensor


class HybridPlacement(Placement):
    """Puts weights where a plan has them.

    Weights that are copied get addresses in a buffer of the GPU, always the same ones, so that recorded steps stay what
    they are; the layer says when it begins and ends (``turn``). What they are made of is made here, so that nothing of
    them takes memory of the GPU beside the buffers.
    """

    def __init__(self, device: Device, plan: Plan, workspace: Workspace, budget: MemoryBudget) -> None:
        """Make room.

        Args:
            device: A GPU.
            plan: Which weights of which layers stay here.
            workspace: What the model computes in.
            budget: Counts the buffers.

        Raises:
            OutOfMemoryError: There is too little memory.
        """
        stream = device.stream
        if stream is None:
            raise DeviceError(f"weights cannot be split between {device} and the CPU: it is the CPU")
        self._stream = stream
        self.copied = tuple(unit.layer for unit in plan.copied)
        self.computed = tuple(unit.layer for unit in plan.computed)
        self._experts_only = {unit.layer for unit in plan.copied if unit.experts}
        self._items = {layer: i for i, layer in enumerate(self.copied)}
        self._used = [0] * len(self.copied)
        self._chosen: dict[int, tuple[int, int]] = {}  # of items that are experts: those of a token, and all
        what = "buffers for layers that do not fit on the GPU"
        self._buffers = [
            Storage.allocate(plan.buffer_bytes, budget=budget, what=what, device=device) for _ in range(plan.buffers)
        ]
        addresses = [buffer.address for buffer in self._buffers]
        self._turns = stream.turns(addresses, [unit.nbytes for unit in plan.copied]) if plan.copied else None
        self._budget, self._tokens, self._rounds = budget, workspace.tokens, workspace.rounds_inputs
        self._here: Workspace | None = None
        self._mails: dict[tuple[int, int, int], Mail] = {}

    def made_on(self, source: Below) -> Device:
        """Return the CPU for weights that stay here."""
        return default_device() if self._is_copied(source) else source.device

    def _is_copied(self, source: Below) -> bool:
        layer = source.layer
        return layer in self._items and (source.of_experts or layer not in self._experts_only)

    def keep(self, source: Below, weight: Tensor) -> Tensor:
        """Move a weight that is copied each time to pinned memory; return what operations find in its buffer.

        Raises:
            OutOfMemoryError: There is too little pinned memory.
            CheckpointError: The layer takes more than when it was rehearsed.
        """
        if source.layer is None or self._turns is None or not self._is_copied(source):
            return weight
        item = self._items[source.layer]
        at, buffer = self._used[item], self._buffers[item % len(self._buffers)]
        if at + weight.nbytes > self._turns.sizes[item]:
            raise CheckpointError(
                f"{source.prefix}: the layer takes more weights than when it was rehearsed; take the same ones each "
                "time the model is built"
            )
        self._used[item] = at + rounded(weight.nbytes)
        whole = weight.contiguous()  # which may be a copy, and has to live until it is read
        ctypes.memmove(self._turns.image(item) + at, whole.address, whole.nbytes)
        return Tensor(buffer, buffer.address + at, weight.dtype, weight.shape, row_major(weight.shape))

    def experts(self, source: S, make: Callable[[S], SizedExpertsBlock]) -> ExpertsBlock:
        """Return a layer's experts, which the CPU computes where the plan says so."""
        if source.layer not in self.computed:
            return self._copied_experts(source.layer, make(source))
        if self._here is None:
            self._here = Workspace(self._tokens, self._budget, device=default_device(), round_inputs=self._rounds)
        model = cast(Source, source)
        block = make(cast(S, replace(model, workspace=self._here)))
        sizes = block.sizes
        if sizes not in self._mails:
            self._mails[sizes] = Mail(self._stream, self._tokens, *sizes)
        return HostExperts(model, block, self._mails[sizes])

    def _copied_experts(self, layer: int | None, block: SizedExpertsBlock) -> ExpertsBlock:
        if layer is None or layer not in self._items or self._turns is None:
            return block
        item = self._items[layer]
        buffer = self._buffers[item % len(self._buffers)]
        self._chosen[item] = block.sizes[1:]
        return CopiedExperts(block, buffer.address, self._stream, partial(self._turns.bring_parts, item))

    def turn(self, layer: int) -> Turn | None:
        """Return what a layer tells whose weights are copied."""
        item = self._items.get(layer)
        return None if item is None or self._turns is None else _LayerTurn(self._turns, item, self._chosen)

    def free(self) -> None:
        """Give back buffers, pinned memory and what the CPU computes in."""
        if self._turns is not None:
            self._turns.close()
        for buffer in self._buffers:
            buffer.free()
        if self._here is not None:
            self._here.free()
        self._mails.clear()


class Items(Protocol):
    """What brings items into buffers of a GPU (``Stream.turns``)."""

    def enter(self, item: int, /) -> None:
        """Let what is asked of the GPU from here on find the item."""
        ...

    def leave(self, item: int, left_out: Container[int], /) -> None:
        """Let the next item that is not left out come behind what was asked."""
        ...


class _LayerTurn:
    """What a layer tells; in a step of few tokens experts are not brought before they are chosen."""

    def __init__(self, items: Items, item: int, chosen: Mapping[int, tuple[int, int]]) -> None:
        self._items, self._item, self._chosen = items, item, chosen

    def _left_out(self, tokens: int) -> list[int]:
        return [item for item, sizes in self._chosen.items() if are_few(tokens, *sizes)]

    def enter(self, tokens: int) -> None:
        if self._item not in self._left_out(tokens):
            ops.host_call(partial(self._items.enter, self._item))

    def leave(self, tokens: int) -> None:
        left_out = self._left_out(tokens)
        if self._item not in left_out:
            ops.host_call(partial(self._items.leave, self._item, left_out))
