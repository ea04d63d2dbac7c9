"""A plugin of pytest that notes which kernels for GPUs a test ran, and which of the CPU's: ``-p kernel_runs``.

What was run is seen where the interpreter begins with it, by the name that the compiler gave the entry, so it is what a
test did and not what it says. With ``--kernel-runs FOLDER`` each process of the run writes a file there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ptx import Module

from pio.kernels import jobs
from pio.kernels._image import Name

ALONE, OPERATION, CPU = "alone", "operation", "cpu"  # by its name, behind the driver, and the CPU's of that name
HERE = Path(__file__).parent


@dataclass
class Runs:
    """What the test that is under way has run, and what those before have that passed.

    Attributes:
        now: Of the one under way, by ALONE, OPERATION and CPU; names such as ``norm.rms_norm_float32``.
        kept: Of the others, by test.
    """

    now: dict[str, set[str]] = field(default_factory=dict)
    kept: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def note(self, how: str, name: str) -> None:
        """Say that a kernel is run."""
        self.now.setdefault(how, set()).add(name)

    def keep(self, test: str) -> None:
        """Take what has been run for that of a test, with what others of its name have run."""
        kept = self.kept.setdefault(test, {})
        for how, names in self.now.items():
            kept.setdefault(how, set()).update(names)


@cache
def kernel_of(entry: str) -> str | None:
    """Return which kernel has an entry of this name, such as ``norm.rms_norm_float32``; None where it is none of pio.

    >>> kernel_of("_ZN3pio7kernels4cuda4norm16rms_norm_float32B2v1Exxx")
    'norm.rms_norm_float32'
    """
    parts, at = list[str](), entry.find("3pio7kernels4cuda")
    while at >= 0 and (found := re.compile(r"\d+").match(entry, at)):
        at = found.end() + int(found[0])
        parts.append(entry[found.end() : at])
    return ".".join(parts[3:]) if len(parts) == 5 else None


def watch(patch: pytest.MonkeyPatch, runs: Runs) -> None:
    """Have everything noted from here on that the interpreter and the CPU run."""
    launch, call, prepare = Module.launch, jobs.Job.__call__, jobs.Serial.prepare

    def launched(module: Module, entry: str, *args: Any, memory: Any, **options: Any) -> None:
        launch(module, entry, *args, memory=memory, **options)
        name = kernel_of(entry)
        if name is not None:
            runs.note(OPERATION if getattr(memory, "is_a_gpu", False) else ALONE, name)

    def called(job: jobs.Job, *values: Any) -> None:
        call(job, *values)
        runs.note(CPU, _short(job.source.name))

    def prepared(serial: jobs.Serial) -> Callable[..., Any]:
        function = prepare(serial)

        def run(*values: Any) -> Any:
            runs.note(CPU, _short(serial.source.name))
            return function(*values)

        serial._function = run
        return run

    patch.setattr(Module, "launch", launched)
    patch.setattr(jobs.Job, "__call__", called)
    patch.setattr(jobs.Serial, "prepare", prepared)


def _short(name: Name) -> str:
    return f"{name.module.removeprefix('pio.kernels.')}.{name.full}"


def read(folder: Path) -> dict[str, dict[str, set[str]]]:
    """Return what all processes of a run have noted, by test and by how."""
    runs = Runs()
    for file in sorted(folder.glob("*.json")):
        for test, found in json.loads(file.read_text("utf-8")).items():
            runs.now = {how: set(names) for how, names in found.items()}
            runs.keep(test)
    return runs.kept


class Plugin:
    """What pytest calls."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs, self._patch = folder, Runs(), pytest.MonkeyPatch()
        self._failed = False  # the process that hands tests to others runs none, and hears of all
        watch(self._patch, self._runs)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin anew with each test."""
        self._runs.now = {}
        self._failed = False
        done = yield
        if not self._failed and item.path.parent == HERE:
            self._runs.keep(f"{item.path.name}::{item.name.partition('[')[0]}")
        return done

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What a test ran that failed proves nothing."""
        self._failed = self._failed or not report.passed

    def pytest_sessionfinish(self) -> None:
        """Write what has been seen."""
        self._patch.undo()
        kept = {t: {how: sorted(n) for how, n in found.items()} for t, found in self._runs.kept.items() if found}
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{os.getpid()}.json").write_text(json.dumps(kept), "utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernel-runs", metavar="FOLDER", help="note there which kernels for GPUs each test runs")


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("--kernel-runs")
    if folder:
        config.pluginmanager.register(Plugin(Path(folder)), "kernel-runs")
