"""Which weights of a model lie on its GPU: found out by a rehearsal, by what is free there, and by measured times."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

from pio import ops
from pio.config.runtime import RuntimeConfig
from pio.device import Device, default_device
from pio.errors import ConfigError, OutOfMemoryError
from pio.layers.hybrid_placement import HybridPlacement
from pio.layers.placement import Census, Placement, SizedExpertsBlock
from pio.layers.placement_plan import Plan, Unit, least, plan
from pio.layers.source import Inventory, Source
from pio.layers.workspace import Workspace
from pio.memory.budget import MemoryBudget
from pio.memory.fit import require_free
from pio.memory.sizes import format_bytes
from pio.ops.experts import Choices
from pio.tensor import Tensor

SMALL = 1 << 20  # bytes of sizes, tables and batches that lie on a GPU beside what is counted
SPARE, SHARE = 512 << 20, 32  # of a GPU's free memory so much, or that share, is left to kernels and recorded steps
TIMES = 5  # that experts are computed to see how long it takes
MATRICES = 3  # of an expert
MEASURED = 64 << 20  # bytes that are copied to see how long it takes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model takes of a GPU's memory.

    Attributes:
        census: What its layers take.
        fixed: Bytes of all else: other weights, cache and activations.
    """

    census: Census
    fixed: int

    @property
    def units(self) -> list[Unit]:
        """What may lie elsewhere: the experts of each layer, or where there are none its weights."""
        others, experts = self.census.others, self.census.experts_bytes
        return [Unit(i, experts.get(i, others.get(i, 0)), i in experts) for i in sorted(others | experts)]

    @classmethod
    def of(cls, census: Census, weights: int, others: int) -> Needs:
        """Return the needs of a model with so many bytes of weights, of which a census knows the layers'.

        Args:
            census: Of all layers.
            weights: Bytes of all weights.
            others: Bytes of cache and activations.
        """
        found = cls(census, 0)
        movable = sum(census.raw[unit.layer, unit.experts] for unit in found.units)
        return replace(found, fixed=weights - movable + others + SMALL)


def check_options(runtime: RuntimeConfig) -> None:
    """Refuse options about a GPU where the model is to run on the CPU.

    Raises:
        ConfigError: One is given.
    """
    for name in ("cuda_kernels", "gpu_memory", "offloaded_experts"):
        if runtime.device == "cpu" and name in runtime.model_fields_set:
            raise ConfigError(f"{name} says nothing with device='cpu'; leave it out, or use device='cuda'")


def place(
    needs: Needs,
    runtime: RuntimeConfig,
    workspace: Workspace,
    budget: MemoryBudget,
    check: Callable[[], object],
    whole: bool = False,
) -> Placement:
    """Return where weights are to lie: on the GPU, as far as there is room.

    Args:
        needs: Of the model.
        runtime: How it is to run.
        workspace: What it computes in.
        budget: Counts what is needed beside its weights.
        check: Called before what takes long; what it raises ends the loading.
        whole: Whether there must be room for all of them.

    Raises:
        ConfigError: It says what becomes of experts, and the model has none.
        OutOfMemoryError: There is not; or not even with all layers copied would it fit, or the machine has too little
            memory for them.
    """
    device, units = workspace.device, needs.units
    stream = device.stream
    if stream is None:
        return Placement()
    if needs.census.first is None and "offloaded_experts" in runtime.model_fields_set:
        raise ConfigError("offloaded_experts says nothing of a model without experts; leave it out")
    free = stream.room()
    limit = free - min(SPARE, free // SHARE)
    if runtime.gpu_memory is not None:
        limit = min(runtime.gpu_memory, limit)
    room = limit - needs.fixed
    if sum(unit.nbytes for unit in units) <= room:
        return Placement()
    if whole:
        wanted = format_bytes(needs.fixed + sum(unit.nbytes for unit in units))
        raise OutOfMemoryError(
            f"{device}: weights, cache and activations take {wanted}, and {format_bytes(max(limit, 0))} may be used; "
            f"device={str(device)!r} would have layers that do not fit copied there in each step"
        )
    copying = plan(units, room, compute=False)
    if copying is None:
        raise OutOfMemoryError(
            f"{device}: cache, activations and weights take {format_bytes(needs.fixed + least(units))} there, even "
            f"where the weights of layers are copied in each step, and {format_bytes(max(limit, 0))} may be used; give "
            "more gpu_memory, ask for less with context_length, cache_tokens or prefill_chunk, quantize, or use "
            "device='cpu'"
        )
    chosen, why = _with_experts(copying, needs, room, runtime, workspace, check)
    require_free(
        sum(unit.nbytes for unit in chosen.copied),
        f"layers for which {device} has no room take",
        "let the GPU keep more (gpu_memory), quantize, or use device='cpu'",
    )
    _say(device, chosen, units, why)
    return HybridPlacement(device, chosen, workspace, budget)


def _with_experts(
    copying: Plan,
    needs: Needs,
    room: int,
    runtime: RuntimeConfig,
    workspace: Workspace,
    check: Callable[[], object],
) -> tuple[Plan, str]:
    """Return the plan to follow, and what was measured for it."""
    first, computing = needs.census.first, plan(needs.units, room, compute=True)
    if runtime.offloaded_experts == "copy" or first is None or computing is None or not computing.computed:
        return copying, ""
    if runtime.offloaded_experts == "compute":
        return computing, ""
    check()
    block = _block_here(*first, workspace.rounds_inputs)
    copied = seconds_to_copy(copying, block.sizes, workspace.device)
    check()
    computed = len(computing.computed) * seconds_here(block)
    if computing.copied:
        computed += seconds_to_copy(computing, block.sizes, workspace.device)
    why = (
        f" (measured: for one token copies take {1e3 * copied:.3g} ms, and {1e3 * computed:.3g} ms where the CPU "
        "computes experts)"
    )
    return (computing if computed < copied else copying), why


def seconds_to_copy(chosen: Plan, sizes: tuple[int, int, int], device: Device) -> float:
    """Return how long it takes to copy what a plan has copied for one token, by a measurement.

    Args:
        chosen: The plan.
        sizes: Of experts, as a block of them has them.
        device: The GPU.
    """
    stream = device.stream
    assert stream is not None
    _, k, experts = sizes
    mixtures = [unit.nbytes for unit in chosen.copied if unit.experts]
    others = sum(unit.nbytes for unit in chosen.copied if not unit.experts)
    seconds = 0.0
    if mixtures:
        seconds += len(mixtures) * stream.copy_seconds(MATRICES * k, max(mixtures) // (MATRICES * experts))
    if others:
        nbytes = min(MEASURED, others)
        seconds += stream.copy_seconds(1, nbytes) * others / nbytes
    return seconds


def _block_here(source: Source, make: Callable[[Source], SizedExpertsBlock], rounds_inputs: bool) -> SizedExpertsBlock:
    """Return a layer's experts on the CPU, for a measurement."""
    workspace = Workspace(1, device=default_device(), round_inputs=rounds_inputs)
    told = source.weights, workspace, source.prefix, source.dtype, source.quantization, Inventory(), source.check
    return make(Source(*told, of_experts=True))


def seconds_here(block: SizedExpertsBlock) -> float:
    """Return how long the CPU takes for the experts of a token in one layer, by a measurement."""
    hidden, k, experts = block.sizes
    x, residual = Tensor.zeros((1, hidden)), Tensor.zeros((1, hidden))
    x.fill_(0.5)
    taken = list[float]()
    for again in (False, True):  # at first pages are read and kernels compiled
        for i in range(TIMES):
            choices = _choose([(i * k + j) % experts for j in range(k)], experts)
            begin = perf_counter()
            block(x, choices, residual)
            if again:
                taken.append(perf_counter() - begin)
    return sorted(taken)[TIMES // 2]


def _choose(wanted: list[int], experts: int) -> Choices:
    """Return the choices of one token that goes to these experts."""
    logits = Tensor.from_list([[1.0 if i in wanted else 0.0 for i in range(experts)]])
    return ops.route(logits, out=Choices.empty(1, len(wanted), experts))


def _say(device: Device, chosen: Plan, units: list[Unit], why: str) -> None:
    copied = ", ".join(str(unit.layer) for unit in chosen.copied)
    computed = ", ".join(str(unit.layer) for unit in chosen.computed)
    _log.info(
        "%s has no room for all of %d layers%s%s%s",
        device,
        len(units),
        f"; the weights of layers {copied} are copied there in each step" if copied else "",
        f"; the CPU computes the experts of layers {computed}" if computed else "",
        why,
    )
