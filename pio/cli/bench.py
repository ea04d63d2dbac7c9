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
    from pio.benchmarks.report import Plan, Report

MOST = 1 << 24  # tokens, more than any context


def bench(
    model: options.Model = "demo",
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Measure random weights of this config.json's shape.", show_default=False),
    ] = None,
    prompt_tokens: Annotated[
        list[int] | None,
        typer.Option(
            "--prompt-tokens", min=1, max=MOST, help="Tokens of the prompt (512); of several, for their ratio."
        ),
    ] = None,
    depth: Annotated[int, typer.Option("--depth", min=1, max=MOST, help="Tokens before the answer.")] = 32,
    new_tokens: Annotated[int, typer.Option("--new-tokens", min=2, max=MOST, help="Tokens of the answer.")] = 64,
    sequences: Annotated[int, typer.Option("--sequences", min=1, help="Answers that are decoded together.")] = 1,
    busy: Annotated[
        int, typer.Option("--busy", min=0, help="Decode also beside this many processes that compute.")
    ] = 0,
    layers: Annotated[
        int | None, typer.Option("--layers", min=1, help="Only the first layers of --config, at their true widths.")
    ] = None,
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
    activation_dtype: options.ActivationDtype = None,
    memory_limit: options.MemoryLimit = None,
    mmap: options.Mmap = None,
    progress: options.Progress = None,
) -> None:
    """Measure decode, prefill and memory of a model, and hold them against what the machine can do."""
    given = options.runtime_options(dict(locals()))
    if config is not None and model != "demo":
        raise ConfigError("--config takes the place of a model; give one of the two")
    if config is not None and not config.exists():
        raise ConfigError(f"--config {config}: there is no such file; give a config.json, or a folder that holds one")
    if layers is not None and config is None:
        raise ConfigError("--layers cuts what --config describes; give a config, or leave it out")
    from pio.benchmarks.report import Plan

    prompts = tuple(prompt_tokens or ()) or (512,)
    plan = Plan(prompts, depth, new_tokens, sequences, busy, rounds, buffer_mb * 1_000_000)
    given = _with_room(plan, given)
    report = _measure(model, plan, given) if config is None else _measure_random(config, layers, plan, given)
    if json:
        write_json(report.as_dict())
    else:
        _show(report)


def _with_room(plan: Plan, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options with room for the plan; a context that the user chose stays, and the plan is cut to it."""
    from pio.config.runtime import RuntimeConfig
    from pio.ops.attention import BLOCK_SIZE

    runtime = RuntimeConfig.from_options(**{name: value for name, value in given.items() if name != "plugin"})
    if plan.sequences > 1 and plan.sequences * plan.depth > runtime.prefill_chunk:
        raise ConfigError(
            f"--sequences {plan.sequences} --depth {plan.depth}: the prompts have {plan.sequences * plan.depth} tokens "
            f"and a step reads {runtime.prefill_chunk}, so answers would wait for each other's prompts; take --depth "
            f"{max(1, runtime.prefill_chunk // plan.sequences)} or fewer sequences"
        )
    room = dict(given)
    if "context_length" not in given and plan.context > runtime.context_length:
        room["context_length"] = plan.context
    if plan.sequences > runtime.max_batch_sequences:
        room["max_batch_sequences"] = plan.sequences
    blocks = plan.sequences * (2 + (plan.depth + plan.new_tokens) // BLOCK_SIZE)  # one in reserve for each
    if plan.sequences > 1 and blocks * BLOCK_SIZE > runtime.context_length:
        room["cache_tokens"] = blocks * BLOCK_SIZE
    return room


def _measure(name: str, plan: Plan, given: dict[str, Any]) -> Report:
    from pio.benchmarks.measure import measure
    from pio.plugin.loader import load

    began = time.perf_counter()
    with load(name, **given) as loaded:
        return measure(loaded, plan, name=name, load_seconds=time.perf_counter() - began)


def _measure_random(config: Path, layers: int | None, plan: Plan, given: dict[str, Any]) -> Report:
    from pio.benchmarks.measure import measure
    from pio.benchmarks.random_model import cut, random_model, read_config

    began = time.perf_counter()
    raw = read_config(config)
    with random_model(raw if layers is None else cut(raw, layers), **given) as loaded:
        name = f"random weights of {config}" if layers is None else f"random weights of {layers} layers of {config}"
        return measure(loaded, plan, name=name, load_seconds=time.perf_counter() - began)


def _show(r: Report) -> None:
    held = f"{count(r.parameters)} parameters in {named(r.formats)}"
    title = f"{r.model}: {r.plugin}, {held}; {r.processor}, {r.threads} threads"
    peak = "unknown" if r.peak_memory is None else size(r.peak_memory)
    rows = [
        ["read bandwidth", f"{r.bandwidth.median / 1e9:.2f} GB/s", f"best {r.bandwidth.best / 1e9:.2f}"],
        *_decode_rows(r),
        *_prefill_rows(r),
        ["load", f"{r.load_seconds:.2f} s", "kernels included"],
        ["weights", size(r.weights_bytes), ""],
        ["cache", size(r.cache_bytes), "reserved"],
        ["peak memory", peak, f"at most {size(r.memory_bound)} is the aim: 1.08 x (weights + cache) + 200 MB"],
    ]
    write_table(title, ["", ">median", ""], rows)


def _decode_rows(r: Report) -> list[list[str]]:
    together = f"{r.sequences} sequences together, " if r.sequences > 1 else ""
    rows = [
        [
            "decode",
            f"{r.decode.median:.2f} tok/s",
            f"best {r.decode.best:.2f}; {together}{r.new_tokens} tokens after {r.depth}",
        ],
        ["  weights read a token", size(round(r.weights_per_token)), ""],
        ["  cache read a token", size(round(r.cache_per_token)), "keys and values"],
        ["  share of bandwidth", f"{r.bandwidth_share:.1%}", "(weights + cache) x tok/s / bandwidth, round by round"],
    ]
    if r.busy_decode is not None:
        beside = f"  beside {r.busy} busy process{'es' if r.busy > 1 else ''}"
        rows.append([beside, f"{r.busy_decode.median:.2f} tok/s", f"keeps {r.busy_keeps:.1%}, round by round"])
    return rows


def _prefill_rows(r: Report) -> list[list[str]]:
    rows: list[list[str]] = []
    first = r.prefill[0].prompt_tokens
    for p in r.prefill:
        peak, work = p.operations.median / 1e9, p.operations_per_token / 1e9
        rows += [
            ["prefill", f"{p.speed.median:.1f} tok/s", f"best {p.speed.best:.1f}; {p.prompt_tokens} tokens"],
            [f"  {r.arithmetic} peak", f"{peak:.1f} Gop/s", f"best {p.operations.best / 1e9:.1f}"],
            [f"  share of {r.arithmetic} peak", f"{p.operations_share:.1%}", f"{work:.3g} Gop/token"],
            ["  time to first token", f"{p.time_to_first_token:.3f} s", ""],
        ]
        if p is not r.prefill[0]:
            rows.append([f"  against {first} tokens", f"{p.against_first:.1%}", "round by round"])
    return rows
