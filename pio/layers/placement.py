"""Where weights of layers lie: all on the model's device, unless there is too little memory (``hybrid_placement``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pio.device import Device
from pio.ops.routing import Choices
from pio.tensor import Tensor

STEP = 256  # bytes to whose multiples weights are placed


class ExpertsBlock(Protocol):
    """What adds the outputs of the experts that tokens chose."""

    def __call__(self, x: Tensor, choices: Choices, residual: Tensor, /) -> None:
        """Add the experts' outputs for x to the residual stream."""
        ...


class SizedExpertsBlock(ExpertsBlock, Protocol):
    """One whose weights are tensors."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Width of the residual stream, experts of a token, and all experts."""
        ...

    def weights_of(self, expert: int, /) -> list[Tensor]:
        """Return the memory of an expert's weights."""
        ...


class Below(Protocol):
    """Whose weights they are: a ``pio.layers.source.Source``, as far as their place goes."""

    @property
    def device(self) -> Device:
        """Where the model runs."""
        ...

    @property
    def prefix(self) -> str:
        """Their names so far."""
        ...

    @property
    def layer(self) -> int | None:
        """The number of their layer."""
        ...

    @property
    def of_experts(self) -> bool:
        """Whether they are those of experts."""
        ...


S = TypeVar("S", bound=Below)


class Turn(Protocol):
    """What a layer calls whose weights share memory with those of others, which are there at other times.

    The calls are part of a step that is recorded.
    """

    def enter(self, tokens: int, /) -> None:
        """Have the weights there for what is asked of the device from here on, in a step of so many tokens."""
        ...

    def leave(self, tokens: int, /) -> None:
        """Let others have the memory behind what was asked of the device."""
        ...


class Placement:
    """All weights lie on the model's device.

    Attributes:
        copied: Layers whose weights come to the device each time they are needed: all of them, or those of experts.
        computed: Layers whose experts are computed by the CPU.
    """

    copied: tuple[int, ...] = ()
    computed: tuple[int, ...] = ()

    def made_on(self, source: Below) -> Device:
        """Return where a weight is made, before ``keep`` gets it."""
        return source.device

    def keep(self, source: Below, weight: Tensor) -> Tensor:
        """Return a weight where operations will find it; another one where it has a place of its own."""
        return weight

    def experts(self, source: S, make: Callable[[S], SizedExpertsBlock]) -> ExpertsBlock:
        """Return a layer's experts, made of the weights below a source."""
        return make(source)

    def turn(self, layer: int) -> Turn | None:
        """Return what a layer of that number tells; None where its weights stay."""
        return None

    def free(self) -> None:
        """Give back what is no weight of the device alone; nothing can run any more."""


class Census(Placement):
    """Counts what placing needs to know, while a model is rehearsed.

    Attributes:
        others: Bytes of all weights of each layer but those of experts, each rounded up to ``STEP``.
        experts_bytes: Bytes of the weights of each layer's experts.
        raw: Bytes of the weights of layers as they are.
        first: The weights of the first layer with experts, and what makes a block of them; None where there are none.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.others: dict[int, int] = {}
        self.experts_bytes: dict[int, int] = {}
        self.first: tuple[Any, Callable[[Any], SizedExpertsBlock]] | None = None
        self.raw: dict[tuple[int, bool], int] = {}

    def keep(self, source: Below, weight: Tensor) -> Tensor:
        """Count a weight."""
        if source.layer is not None:
            counted = self.experts_bytes if source.of_experts else self.others
            counted[source.layer] = counted.get(source.layer, 0) + rounded(weight.nbytes)
            key = source.layer, source.of_experts
            self.raw[key] = self.raw.get(key, 0) + weight.nbytes
        return weight

    def experts(self, source: S, make: Callable[[S], SizedExpertsBlock]) -> ExpertsBlock:
        """Note how experts are made."""
        self.first = self.first or (source, make)
        return make(source)


def rounded(nbytes: int) -> int:
    """Return the bytes between the beginnings of a weight of so many and the next one."""
    return -(-nbytes // STEP) * STEP
