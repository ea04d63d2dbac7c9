"""``pio bench``: how fast a model is here, and how near to what the machine can do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pio.cli import options
from pio.cli.console import count, size, write_json, write_table
from pio.cli.loading import named
from pio.errors import ConfigError

if TYPE_CHECKING:
    from pio.cli.bench_model import Plan, Report


def bench(
    model: options.Model = "demo",
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Measure random weights of this config.json's shape.", show_default=False),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", min=1, help="Tokens of the prompt.")] = 512,
    new_tokens: Annotated[int, typer.Option("--new-tokens", min=2, help="Tokens of the answer.")] = 64,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often to measure; medians count.")] = 5,
    buffer_mb: Annotated[
        int, typer.Option("--buffer-mb", min=1, help="Read this much to measure the bandwidth.")
    ] = 1074,
    json: options.Json = False,
    plugin: options.Plugin = None,
    profile: options.Profile = None,
    threads: options.Threads = None,
    context_length: options.ContextLength = None,
    dtype: options.Dtype = None,
    quantize: options.Quantize = None,
    quantize_policy: options.QuantizePolicy = None,
    memory_limit: options.MemoryLimit = None,
    progress: options.Progress = None,
) -> None:
    """Measure decode, prefill and memory of a model, and hold them against what the machine can do."""
    given = options.runtime_options(dict(locals()))
    if config is not None and model != "demo":
        raise ConfigError("--config takes the place of a model; give one of the two")
    from pio.cli.bench_model import Plan

    plan = Plan(prompt_tokens, new_tokens, rounds, buffer_mb * 1_000_000)
    report = _measure(model, plan, given) if config is None else _measure_random(config, plan, given)
    if json:
        write_json(report.as_dict())
    else:
        _show(report)


def _measure(name: str, plan: Plan, given: dict[str, Any]) -> Report:
    from pio.cli.bench_model import measure
    from pio.loader import load

    began = time.perf_counter()
    with load(name, **given) as loaded:
        return measure(loaded, plan, name=name, load_seconds=time.perf_counter() - began)


def _measure_random(config: Path, plan: Plan, given: dict[str, Any]) -> Report:
    from pio.cli.bench_model import measure
    from pio.cli.random_model import random_model, read_config

    began = time.perf_counter()
    with random_model(read_config(config), **given) as loaded:
        name = f"random weights of {config}"
        return measure(loaded, plan, name=name, load_seconds=time.perf_counter() - began)


def _show(r: Report) -> None:
    held = f"{count(r.parameters)} parameters in {named(r.formats)}"
    title = f"{r.model}: {r.plugin}, {held}; {r.processor}, {r.threads} threads"
    peak = "unknown" if r.peak_memory is None else size(r.peak_memory)
    rows = [
        ["read bandwidth", f"{r.bandwidth.median / 1e9:.2f} GB/s", f"best {r.bandwidth.best / 1e9:.2f}"],
        [f"{r.arithmetic} peak", f"{r.operations.median / 1e9:.1f} Gop/s", f"best {r.operations.best / 1e9:.1f}"],
        ["decode", f"{r.decode.median:.2f} tok/s", f"best {r.decode.best:.2f}; {r.new_tokens} tokens"],
        ["  weights read a token", size(r.bytes_per_token), ""],
        ["  share of bandwidth", f"{r.bandwidth_share:.1%}", "bytes x tok/s / bandwidth, round by round"],
        ["prefill", f"{r.prefill.median:.1f} tok/s", f"best {r.prefill.best:.1f}; {r.prompt_tokens} tokens"],
        [
            f"  share of {r.arithmetic} peak",
            f"{r.operations_share:.1%}",
            f"{r.operations_per_token / 1e9:.3g} Gop/token",
        ],
        ["  time to first token", f"{r.time_to_first_token:.3f} s", ""],
        ["load", f"{r.load_seconds:.2f} s", "kernels included"],
        ["weights", size(r.weights_bytes), ""],
        ["cache", size(r.cache_bytes), "reserved"],
        ["peak memory", peak, f"at most {size(r.memory_bound)} is the aim: 1.1 x (weights + cache) + 250 MB"],
    ]
    write_table(title, ["", ">median", ""], rows)
