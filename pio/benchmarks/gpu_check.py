"""Proves on a GPU what was built without one: ``python -m pio.benchmarks.gpu_check --out report.json``.

Every kernel against the CPU's at real sizes, the same bits again and beside others, shares of the bandwidth and of the
tensor cores' peak, launches, whole models with random weights, a new process's first token, other libraries where they
are installed. A part that fails is reported, and the others go on. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pio.benchmarks.gpu.check import Check, Finding, Part, PartReport, run_part
from pio.benchmarks.gpu.check_shapes import REAL, SMALL, Shapes
from pio.benchmarks.gpu.gpu_facts import facts, launches, peaks
from pio.benchmarks.gpu.kernel_checks import agreement, independence, prefill, reads, repeats
from pio.benchmarks.gpu.kernel_compilation import compiled
from pio.benchmarks.gpu.model_checks import checkpoints, logits, models
from pio.benchmarks.gpu.other_processes import peers, start
from pio.benchmarks.gpu.sight_checks import sight
from pio.benchmarks.gpu.text_table import text_table
from pio.device import Device
from pio.errors import ConfigError, PioError

# In this order, each with how many of 100 parts of the time it may take beside what those before it left over.
PARTS: Final[dict[str, tuple[Part, int]]] = {
    "facts": (facts, 1),
    "compiled": (compiled, 8),
    "peaks": (peaks, 2),
    "launches": (launches, 1),
    "independence": (independence, 4),
    "repeats": (repeats, 6),
    "agreement": (agreement, 18),
    "logits": (logits, 10),
    "sight": (sight, 4),
    "reads": (reads, 11),
    "prefill": (prefill, 4),
    "models": (models, 20),
    "start": (start, 4),
    "checkpoints": (checkpoints, 2),
    "peers": (peers, 5),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a GPU; return 0 where everything is right, however fast it is, and 1 where something is not."""
    given = _parser().parse_args(arguments)
    try:
        reports = check(
            given.device,
            SMALL if given.small else REAL,
            minutes=given.minutes,
            parts=given.part or list(PARTS),
            checkpoints=given.checkpoint or [],
            out=given.out,
        )
    except PioError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(shown(reports) + "\n")
    return int(any(report.failed for report in reports))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pio.benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--device", default="cuda", help="which GPU: cuda, cuda:1 (cuda)")
    parser.add_argument("--minutes", type=float, default=8.0, help="how long it may take, about (8)")
    parser.add_argument("--out", type=Path, help="a file for everything that is found, as JSON")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this one; may be repeated")
    parser.add_argument("--checkpoint", action="append", type=Path, help="a folder of a model; may be repeated")
    parser.add_argument("--small", action="store_true", help="small sizes, which say nothing about speed")
    return parser


def check(
    device: str,
    shapes: Shapes,
    *,
    minutes: float = 8.0,
    parts: Sequence[str] = tuple(PARTS),
    checkpoints: Sequence[Path] = (),
    out: Path | None = None,
) -> list[PartReport]:
    """Run parts of the check, and write what they find as each ends.

    Raises:
        ConfigError: The device is no GPU, or there is no time.
        DeviceError: There is no such GPU.
    """
    there = Device(device)
    if there.stream is None:
        raise ConfigError(f"--device {device}: it is the CPU, beside which GPUs are checked; give cuda, or cuda:1")
    if minutes <= 0:
        raise ConfigError(f"--minutes {minutes:g}: expected more than none")
    shared, reports = Check(there, shapes, checkpoints), list[PartReport]()
    end, shares = time.monotonic() + 60 * minutes, sum(PARTS[name][1] for name in parts)
    for name in parts:
        part, share = PARTS[name]
        allowed = (end - time.monotonic()) * share / shares  # what others left over is for those behind them
        shares -= share
        reports.append(run_part(name, part, shared, max(allowed, 0.0)))
        _say(reports[-1])
        if out is not None:
            out.write_text(json.dumps(as_dict(there, reports), indent=1) + "\n", "utf-8")
    return reports


def as_dict(device: Device, reports: Sequence[PartReport]) -> dict[str, Any]:
    """Return everything that was found, by part."""
    name = "" if device.stream is None else device.stream.gpu.facts.name
    return {"gpu": name, "parts": {report.name: report.as_dict() for report in reports}}


def _say(report: PartReport) -> None:
    """Say on standard error how a part ended."""
    ended = f"failed: {report.error}" if report.error else "something is wrong" if report.failed else "done"
    late = f", {len(report.left_out)} left out for want of time" if report.left_out else ""
    sys.stderr.write(f"{report.name}: {len(report.findings)} findings in {report.seconds:.1f} s, {ended}{late}\n")


def shown(reports: Sequence[PartReport]) -> str:
    """Return the table for people."""
    rows = [_row(report.name, found) for report in reports for found in report.findings]
    rows += [[report.name, "ended by an error", report.error[:120], "", "no"] for report in reports if report.error]
    rows += [
        [report.name, "left out for want of time", f"{len(report.left_out)}: {', '.join(report.left_out)[:90]}", "", ""]
        for report in reports
        if report.left_out
    ]
    return text_table(["part", "what", ">found", "aim", "met"], rows)


def _row(part: str, found: Finding) -> list[str]:
    value = found.value if isinstance(found.value, str) else f"{found.value:.4g}"
    met = "" if found.fine is None else "yes" if found.fine else "WRONG" if found.wrong else "no"
    return [part, found.what, f"{value} {found.unit}".rstrip(), found.aim, met]


if __name__ == "__main__":
    raise SystemExit(main())
