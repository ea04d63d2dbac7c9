"""Kernels for GPUs that are two, of which a launch takes one by how many rows there are: one for few, one for many.

A kernel takes the registers of the path that needs most of them. Steps that decode have few rows, and a kernel that
knew tiles of many rows too would keep registers in memory for their sake. Both compute a row alike, to the bit. A
recorded step has as many rows in every run, so what a launch has taken stays right.

Nothing here takes a compiler: who launches a kernel that is kept imports none.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

FEW: Final = 32  # rows that are few


class ByRows(NamedTuple):
    """Which kernels stand for one.

    Attributes:
        few: Name of the kernel for up to FEW rows.
        many: Name of the one for more.
        rows: Which value of a call says how many rows there are at most; it may be the one behind the parameters.
        mixed: Whether there may be parts of few rows among many: then the kernel for few takes these, before the
            other one takes the rest.
    """

    few: str
    many: str
    rows: int
    mixed: bool = False

    @property
    def names(self) -> tuple[str, str]:
        """Both."""
        return self.few, self.many

    def taken(self, values: tuple[Any, ...]) -> tuple[str, ...]:
        """Return the names of those that a launch with these arguments takes, in order."""
        if values[self.rows] <= FEW:
            return (self.few,)
        return self.names if self.mixed else (self.many,)


VARIANTS: Final = {
    "pio.kernels.cuda._linears.linears": ByRows("few_linears", "many_linears", rows=3),
    "pio.kernels.cuda.experts.experts_linear": ByRows("few_experts", "many_experts", rows=10, mixed=True),
    "pio.kernels.cuda.head_linear.head_linear": ByRows("few_heads", "many_heads", rows=3),
    "pio.kernels.cuda.head_linear.quantized_head_linear": ByRows("few_quantized_heads", "many_quantized_heads", rows=3),
}
