"""A check of a GPU: its parts, each with a share of the time, and what they found."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

from pio.benchmarks.gpu.check_shapes import Shapes
from pio.device import Device
from pio.errors import DeviceError
from pio.ops import roofline
from pio.tensor import Tensor

TIMES: Final = 3  # that something short is timed; the shortest counts


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        what: Of what.
        value: A number, or a text.
        unit: Of the number.
        aim: What it should be, in words; empty where there is no such thing.
        fine: Whether it is; None where nothing says what it should be.
        wrong: Whether something was computed wrongly, which no slowness is.
    """

    what: str
    value: float | str
    unit: str = ""
    aim: str = ""
    fine: bool | None = None
    wrong: bool = False

    @classmethod
    def right(cls, what: str, error: float, within: float) -> Finding:
        """Return an error that must be small; NaN is none."""
        fine = error <= within
        return cls(what, error, "relative error", f"at most {within:g}", fine, not fine)

    @classmethod
    def equal(cls, what: str, count: int, of: int) -> Finding:
        """Return how many of some results have the same bits, which all must have."""
        return cls(what, f"{count} of {of}", "", "all", count == of, count != of)


@dataclass(slots=True)
class PartReport:
    """What a part found.

    Attributes:
        name: Of the part.
        findings: In order.
        seconds: That it took.
        error: What ended it, empty where nothing did.
        left_out: What there was no time for.
    """

    name: str
    findings: list[Finding] = field(default_factory=list[Finding])
    seconds: float = 0.0
    error: str = ""
    left_out: list[str] = field(default_factory=list[str])

    @property
    def failed(self) -> bool:
        """Whether something is wrong, slowness aside."""
        return bool(self.error) or any(found.wrong for found in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass
class Check:
    """What parts share.

    Attributes:
        device: The GPU.
        shapes: At which sizes.
        checkpoints: Folders of models with expected answers, or without.
        until: When the part that runs has to end.
        left_out: What it had no time for.
        lost: In which part the GPU was lost to this process; empty while it is not.
    """

    device: Device
    shapes: Shapes
    checkpoints: Sequence[Path] = ()
    until: float = float("inf")
    left_out: list[str] = field(default_factory=list[str])
    lost: str = ""

    def over(self, what: str, needed: float = 0.0) -> bool:
        """Return whether there is no time left for something that needs so many seconds, and note it then."""
        late = time.monotonic() + needed >= self.until
        if late:
            self.left_out.append(what)
        return late

    def timely(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield things with a name, and note those for which there is no time left."""
        for item in items:
            if not self.over(item.name):
                yield item

    def speed(self, what: str, value: float, unit: str, aim: float) -> Finding:
        """Return a finding that is to be large, where sizes are such that speeds say something."""
        if not self.shapes.timed:
            return Finding(what, value, unit)
        return Finding(what, value, unit, f"at least {aim:g}", value >= aim)

    def short(self, what: str, value: float, unit: str, aim: float) -> Finding:
        """Return one that is to be small, likewise."""
        if not self.shapes.timed:
            return Finding(what, value, unit)
        return Finding(what, value, unit, f"at most {aim:g}", value <= aim)

    def seconds(self, work: Callable[[], object], times: int = TIMES) -> float:
        """Return how long the GPU takes for something that was run once before.

        Args:
            work: What it is.
            times: How often it runs, of which the shortest counts; once where sizes are too small for times.

        Raises:
            DeviceError: There is no GPU to ask.
        """
        stream = self.device.stream
        if stream is None:
            raise DeviceError(f"{self.device} has no stream whose work could be timed; give device='cuda'")
        return max(min(stream.seconds(work) for _ in range(times if self.shapes.timed else 1)), 1e-9)

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second that pio's own kernel reads which does nothing else."""
        buffer = Tensor.empty((self.shapes.buffer // 4,), device=self.device).fill_(1.0)
        roofline.read_all(buffer)
        return buffer.nbytes / self.seconds(lambda: roofline.read_all(buffer))

    @cached_property
    def products(self) -> dict[str, float]:
        """Operations a second of tensor cores, by what is multiplied."""
        rounds, device = self.shapes.rounds, self.device
        measured: dict[str, Callable[[], tuple[Tensor, int]]] = {
            "bfloat16": lambda: roofline.pair_all(rounds, device=device),
            "int8": lambda: roofline.dot_all(rounds, device=device),
        }
        return {name: act()[1] / self.seconds(act) for name, act in measured.items()}


Part: TypeAlias = Callable[[Check], Iterator[Finding]]


def run_part(name: str, part: Part, check: Check, seconds: float) -> PartReport:
    """Run a part, whatever becomes of it, for about so many seconds."""
    report, began = PartReport(name), time.monotonic()
    check.until, check.left_out = began + seconds, report.left_out
    if check.lost:
        report.left_out.append(f"all of it, for the GPU was lost in {check.lost}")
        return report
    with _warnings() as said:
        try:
            for found in part(check):
                report.findings.append(found)
        except Exception as error:  # the next part may be all right
            report.error = f"{type(error).__name__}: {error}"
            if _is_lost(check.device):
                check.lost = name
    report.findings += [Finding("a warning", text, fine=False, wrong=True) for text in said]
    report.seconds = time.monotonic() - began
    return report


def _is_lost(device: Device) -> bool:
    """Return whether nothing more can be done there."""
    try:
        if device.stream is not None:
            device.stream.wait()
    except DeviceError:
        return True
    return False


@contextmanager
def _warnings() -> Generator[list[str]]:
    """Note what pio warns of meanwhile, such as a kernel that cannot be made, in whose place the CPU computes."""
    said, handler = list[str](), logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("pio")
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)
