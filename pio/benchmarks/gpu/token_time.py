"""How long a token takes on a GPU, on paper: what its bytes take, what waits add, what stands between launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pio.benchmarks.gpu.cards import Card
from pio.benchmarks.gpu.decode_step import DecodeStep
from pio.benchmarks.gpu.kernel_table import launched

BESIDE: Final = 0.8e9  # bytes that CUDA's context, kernels, workspace and buffers take, about


@dataclass(frozen=True, slots=True)
class Assumed:
    """What no data sheet says, in seconds.

    Attributes:
        gap: From the end of a kernel in a graph to the first instruction of the next, which needs its results.
        host: Between steps: to choose what runs, send the batch, take the token, and hand it out.
    """

    gap: float = 1.2e-6
    host: float = 100e-6


@dataclass(frozen=True, slots=True)
class TokenTime:
    """Seconds of a decoded token, each sum holding those before it.

    Attributes:
        floor: Its bytes at the speed at which a kernel can read at best.
        work: All kernels, one behind the other, without what lies between them.
        graph: With the gaps between them.
        step: With the host's part.
    """

    floor: float
    work: float
    graph: float
    step: float

    @classmethod
    def of(cls, step: DecodeStep, card: Card, assumed: Assumed) -> TokenTime:
        """Return the times of a step on a GPU."""
        work = sum(launch.times * launch.seconds(card) for launch in step.launches)
        graph = work + step.count * assumed.gap
        return cls(step.nbytes / card.reads, work, graph, graph + assumed.host)


def fits(step: DecodeStep, card: Card) -> bool:
    """Return whether weights and the cache of one such sequence have room on a GPU."""
    return step.weights_bytes() + step.cache_bytes() + BESIDE <= card.nbytes


def summary(step: DecodeStep, card: Card, assumed: Assumed) -> dict[str, Any]:
    """Return what there is to say of a model on a GPU; bytes, seconds, tokens a second."""
    time = TokenTime.of(step, card, assumed)
    return {
        "gpu": card.name,
        "weights_bytes": step.weights_bytes(),
        "cache_bytes": round(step.cache_bytes()),
        "fits": fits(step, card),
        "launches": step.count,
        "bytes_per_token": round(step.nbytes),
        "seconds": {"floor": time.floor, "work": time.work, "graph": time.graph, "step": time.step},
        "tokens_per_second": {"floor": 1 / time.floor, "work": 1 / time.work, "graph": 1 / time.graph}
        | {"step": 1 / time.step},
    }


def kernel_rows(step: DecodeStep, card: Card) -> list[dict[str, Any]]:
    """Return what there is to say of each kind of launch, those that take longest first."""
    rows: list[dict[str, Any]] = []
    for launch in step.launches:
        found = launch.taken(card)
        rows.append(
            {
                "kernel": launched(launch.kernel),
                "what": launch.what,
                "launches": launch.times,
                "items": launch.items,
                "registers": found.registers,
                "registers_known": found.known,
                "blocks": found.blocks,
                "resident": found.resident(card),
                "busy": launch.busy(card),
                "in_flight": launch.in_flight(card),
                "needed_in_flight": launch.needed_in_flight(card),
                "bytes_per_token": launch.times * launch.nbytes,
                "floor_seconds": launch.times * launch.floor(card),
                "seconds": launch.times * launch.seconds(card),
            }
        )
    return sorted(rows, key=lambda row: -row["seconds"])
