"""Where variables lie: in shared memory, local memory, and in the frames of calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from .operands import Variable


@dataclass(slots=True)
class Area:
    """Offsets of variables in one space, in the order in which they were placed."""

    nbytes: int = 0
    offsets: dict[str, int] = field(default_factory=dict)

    def place(self, variable: Variable) -> int:
        if variable.name not in self.offsets:
            start = -(-self.nbytes // variable.align) * variable.align
            self.offsets[variable.name] = start
            self.nbytes = start + variable.nbytes
        return self.offsets[variable.name]


@dataclass(slots=True)
class Layout:
    """The areas of a program. Dynamic shared memory begins after the static one, 16 bytes aligned."""

    shared: Area = field(default_factory=Area)
    local: Area = field(default_factory=Area)
    param: Area = field(default_factory=Area)
    frame: Area = field(default_factory=Area)
    dynamic: dict[str, int] = field(default_factory=dict)

    def place_dynamic(self, variables: list[Variable]) -> None:
        """Place the arrays of unknown size: all begin at one place."""
        align = max([16, *(variable.align for variable in variables)])
        if variables:
            self.shared.nbytes = -(-self.shared.nbytes // align) * align
        self.dynamic = {variable.name: self.shared.nbytes for variable in variables}
