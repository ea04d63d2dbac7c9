"""Which layers' weights stay on a device that has too little memory for all, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """Weights of a layer that stay together or go together: those of its experts, or all where it has none.

    Attributes:
        layer: Number of the layer.
        nbytes: Bytes that they take on the device.
        experts: Whether they are those of experts.
    """

    layer: int
    nbytes: int
    experts: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of weights.

    Attributes:
        copied: Units that come to the device each time, by turns into a few buffers, in the order of layers.
        computed: Units that the CPU computes with.
        buffers: How many buffers there are.
        buffer_bytes: Bytes of each.
    """

    copied: tuple[Unit, ...] = ()
    computed: tuple[Unit, ...] = ()
    buffers: int = 0

    @property
    def buffer_bytes(self) -> int:
        """Bytes of a buffer, which has room for each that comes there."""
        return max((unit.nbytes for unit in self.copied), default=0)

    def needs(self, units: Sequence[Unit]) -> int:
        """Return the bytes that units take on the device by this plan."""
        away = {unit.layer for unit in (*self.copied, *self.computed)}
        return sum(unit.nbytes for unit in units if unit.layer not in away) + self.buffers * self.buffer_bytes


def plan(units: Sequence[Unit], room: int, *, compute: bool) -> Plan | None:
    """Return a plan that fits and moves little.

    Layers that do not stay are spread evenly, so that copies have the time in which the layers between compute. There
    are two buffers, so that one is filled while the layer in the other computes, unless there is only room for one.

    Args:
        units: Of all layers, in their order.
        room: Bytes that there are for them.
        compute: Whether the CPU computes with experts that do not fit; else they are copied as others are.

    Returns:
        None where not even all copied, by way of one buffer, would fit.
    """
    computed = tuple[Unit, ...]()
    if compute:
        experts = [unit for unit in units if unit.experts]
        for count in range(1, len(experts) + 1):
            computed = _spread(experts, count)
            found = Plan(computed=computed)
            if found.needs(units) <= room:
                return found
    rest = [unit for unit in units if unit not in computed]
    if Plan(computed=computed).needs(units) <= room:
        return Plan(computed=computed)
    for buffers in (2, 1):
        for count in range(buffers + 1, len(rest) + 1):
            found = Plan(_spread(rest, count), computed, buffers)
            if found.needs(units) <= room:
                return found
    return None


def least(units: Sequence[Unit]) -> int:
    """Return the fewest bytes with which there is a plan that copies."""
    all_copied = Plan(tuple(units), (), 1)
    return min(all_copied.needs(units), sum(unit.nbytes for unit in units)) if units else 0


def _spread(units: Sequence[Unit], count: int) -> tuple[Unit, ...]:
    """Return so many units at even distances."""
    return tuple(units[(2 * i + 1) * len(units) // (2 * count)] for i in range(count))
