"""``pio verify``: whether plugins and model folders are what they claim to be."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Annotated, Any, TypeAlias

import typer

from pio.cli import options
from pio.cli.console import mark, note, write
from pio.cli.remedies import as_options
from pio.errors import PioError

Check: TypeAlias = tuple[str, Callable[[], object]]


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Plugins or models.", show_default="all plugins and the demo model")
    ] = None,
    device: options.Device = None,
    cuda_kernels: options.CudaKernels = None,
    gpu_memory: options.GpuMemory = None,
    offloaded_experts: options.OffloadedExperts = None,
    verbose: options.Verbose = False,
) -> None:
    """Check plugins (their code is there and complete) and models (their files are whole, their weights numbers)."""
    from pio.cli.checks import manifest_checks, model_checks, plugin_checks
    from pio.plugin import registry

    given = options.runtime_options(dict(locals()))
    installed, broken = registry.manifests(), registry.problems()
    failed = 0
    for name in names or [*installed, *broken, "demo"]:
        write(f"{name}\n")
        if name in broken:
            checks = manifest_checks(broken[name])
        else:
            checks = plugin_checks(installed[name]) if name in installed else model_checks(name, given)
        failed += _run(checks)
    if failed:
        note(f"error: {failed} check{'s' if failed > 1 else ''} failed")
        raise typer.Exit(1)


def _run(checks: Generator[Check]) -> int:
    """Run checks in order; what builds on one that failed is not tried. Return how many failed."""
    with closing(checks):  # a model that they loaded is given back here, not when Python collects it
        for title, check in checks:
            try:
                found: Any = check()
            except Exception as error:  # what a plugin's code raises when it is imported, too
                problem = as_options(str(error)) if isinstance(error, PioError) else f"{type(error).__name__}: {error}"
                write(f"  {mark('failed')} {title}: {' '.join(problem.split())}\n")
                return 1
            write(f"  {mark('ok')} {title}{f': {found}' if isinstance(found, str) else ''}\n")
    return 0
