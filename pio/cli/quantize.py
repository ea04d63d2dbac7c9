"""``pio quantize``: a model folder with quantized weights, once and for all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pio.cli import options
from pio.cli.console import note, size, write
from pio.system import HERE


def quantize(
    src: options.Model,
    dst: Annotated[Path, typer.Argument(help="The new folder, which must be empty if it is there.")],
    format: Annotated[str, typer.Option("--format", help="int8, int4 or int4_zero_point.")] = "int4",
    policy: Annotated[
        str, typer.Option("--policy", help="balanced keeps embedding and output head in int8; uniform does not.")
    ] = "balanced",
    plugin: options.Plugin = None,
    threads: options.Threads = None,
    progress: options.Progress = None,
    verbose: options.Verbose = False,
) -> None:
    """Write a copy of a model with quantized weights; it loads at once, and is mapped and shared as any other."""
    from pio.plugin.quantizer import quantize

    folder = quantize(src, dst, format=format, policy=policy, plugin=plugin, threads=threads, progress=progress)
    taken = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    note(f"weights take {size(taken)}; pio chat {HERE.quote(str(folder))} runs it")
    write(f"{folder}\n")
