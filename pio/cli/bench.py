"""``pio bench``: how fast a model is here, and how near to what the machine can do."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pio.benchmarks import MAX_TOKENS
from pio.cli import options
from pio.cli.bench_tables import show
from pio.cli.console import note, write_json
from pio.cli.pictures import check_sight
from pio.errors import ConfigError

if TYPE_CHECKING:
    from pio.benchmarks.report import Plan, Report
    from pio.benchmarks.workloads import Workload


LARGEST = 1 << 26  # pixels of a picture


def bench(
    context: typer.Context,
    model: options.Model = "demo",
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Measure random weights of this config.json's shape.", show_default=False),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload", metavar="NAME", help="Run only this one of the plugin's workloads (all); may be repeated."
        ),
    ] = None,
    image: options.ImageSize = None,
    prompt_tokens: Annotated[
        list[int] | None,
        typer.Option(
            "--prompt-tokens", min=1, max=MAX_TOKENS, help="Tokens of the prompt (512); of several, for their ratio."
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option("--depth", min=1, max=MAX_TOKENS, help="Tokens before the answer (32).", show_default=False),
    ] = None,
    new_tokens: Annotated[
        int | None,
        typer.Option("--new-tokens", min=2, max=MAX_TOKENS, help="Tokens of the answer (64).", show_default=False),
    ] = None,
    sequences: Annotated[
        int | None,
        typer.Option("--sequences", min=1, help="Answers that are decoded together (1).", show_default=False),
    ] = None,
    busy: Annotated[
        int | None,
        typer.Option("--busy", min=0, help="Decode also beside this many that compute (0).", show_default=False),
    ] = None,
    callers: Annotated[
        int,
        typer.Option("--callers", min=0, help="Serve also 64 requests that this many threads make at once (0)."),
    ] = 0,
    copy: options.Copy = 0,
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
    device: options.Device = None,
    cuda_kernels: options.CudaKernels = None,
    gpu_memory: options.GpuMemory = None,
    offloaded_experts: options.OffloadedExperts = None,
    threads: options.Threads = None,
    context_length: options.ContextLength = None,
    dtype: options.Dtype = None,
    quantize: options.Quantize = None,
    quantize_policy: options.QuantizePolicy = None,
    activation_dtype: options.ActivationDtype = None,
    memory_limit: options.MemoryLimit = None,
    max_draft_tokens: options.MaxDraftTokens = None,
    mmap: options.Mmap = None,
    progress: options.Progress = None,
) -> None:
    """Run a model's workloads; measure its decode, prefill and memory against what the machine can do.

    With options of a shape (prompt tokens, depth, new tokens, sequences, busy), with pictures, callers or a copy, that
    is measured and no workload is run.
    """
    given = options.runtime_options(dict(locals()))
    shape = _shape(prompt_tokens, depth, new_tokens, sequences, busy)
    pictures = tuple(map(_size, image or ()))
    _check_config(config, layers, named=getattr(context.get_parameter_source("model"), "name", "") != "DEFAULT")
    if workload and shape:
        raise ConfigError("--workload has a shape of its own; give it alone, or the options of a shape without it")
    from pio.benchmarks.report import Plan
    from pio.plugin import registry

    raw = _raw_config(model, config, layers)
    if pictures:
        check_sight(str(config or model), ["image"], registry.choose(raw, plugin)[0].modalities)
    alone = shape or ((pictures or callers or copy) and not workload)
    workloads = () if alone else _workloads(raw, plugin, workload or [])
    asked: dict[str, Any] = {"pictures": pictures, "callers": callers, **_copy(copy, new_tokens, given)}
    plan = Plan(**shape, rounds=rounds, buffer_bytes=buffer_mb * 1_000_000, workloads=workloads, **asked)
    given = _with_room(plan, given, raw)
    report = _measure(model, plan, given) if config is None else _measure_random(raw, config, layers, plan, given)
    (_write if json else show)(report)


def _write(report: Report) -> None:
    write_json(report.as_dict())


def _copy(copy: int, new_tokens: int | None, given: dict[str, Any]) -> dict[str, int]:
    """Return the fields of a plan that say what is copied, and have nothing drafted elsewhere.

    Answers of random weights soon go round and round, and would be foreseen.
    """
    if not copy and "max_draft_tokens" in given:
        raise ConfigError("--max-draft-tokens: nothing is drafted but with --copy; give that too, or leave it out")
    given["speculation"] = "auto" if copy else "off"
    return {"copy": copy} if new_tokens is None else {"copy": copy, "copy_tokens": new_tokens}


def _check_config(config: Path | None, layers: int | None, *, named: bool) -> None:
    """Refuse a config that is not there or contradicts a model that is named, and layers of none."""
    if config is not None and named:
        raise ConfigError("--config takes the place of a model; give one of the two")
    if config is not None and not config.exists():
        raise ConfigError(f"--config {config}: there is no such file; give a config.json, or a folder that holds one")
    if layers is not None and config is None:
        raise ConfigError("--layers cuts what --config describes; give a config, or leave it out")


def _shape(prompt_tokens: list[int] | None, *others: int | None) -> dict[str, Any]:
    """Return the fields of a plan that options of the command line set."""
    fields: dict[str, Any] = dict(zip(("depth", "new_tokens", "sequences", "busy"), others, strict=True))
    if prompt_tokens:
        fields["prompt_tokens"] = tuple(prompt_tokens)
    return {name: value for name, value in fields.items() if value is not None}


def _size(given: str) -> tuple[int, int]:
    """Return width and height of a picture."""
    found = re.fullmatch(r"(\d{1,5})\s*[xX×]\s*(\d{1,5})", given.strip())
    if found is None or not 0 < int(found[1]) * int(found[2]) <= LARGEST:
        raise ConfigError(
            f"--image {given!r:.40}: expected width and height of a picture, such as 1024x1024; the largest has "
            f"{LARGEST:,} pixels"
        )
    return int(found[1]), int(found[2])


def _raw_config(model: str, config: Path | None, layers: int | None) -> dict[str, Any]:
    """Return what config.json holds: of a model, or the one that is given, with its first layers alone."""
    from pio.benchmarks.random_model import cut, read_config
    from pio.plugin.loader import find

    raw = read_config(find(model) if config is None else config)
    return raw if layers is None else cut(raw, layers)


def _workloads(raw: dict[str, Any], plugin: str | None, names: list[str]) -> tuple[Workload, ...]:
    """Return the workloads of the plugin that runs a model, and say where it has none."""
    from pio.benchmarks.workloads import DEFAULT, FILE, Workloads
    from pio.plugin import registry

    manifest, _ = registry.choose(raw, plugin)
    found = Workloads.of_plugin(registry.folder_of(manifest))
    if found is None:
        default = ", ".join(workload.name for workload in DEFAULT.workloads)
        note(f"note: plugin {manifest.name} has no {FILE}; the workloads are those of every model: {default}")
    return (found or DEFAULT).chosen(names)


def _with_room(plan: Plan, given: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """Return the options with room for the plan; a context that the user chose stays, and the plan is cut to it."""
    from pio.benchmarks.callers import ROOM
    from pio.benchmarks.sight import most_tokens
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
    context = max([plan.context, *(most_tokens(raw, size) + plan.new_tokens for size in plan.pictures)])
    if "context_length" not in given and context > runtime.context_length:
        room["context_length"] = context
    together = [(plan.sequences, plan.depth + plan.longest_answer), *((w.requests, w.context) for w in plan.workloads)]
    most = max(n for n, _ in together)
    if most > runtime.max_batch_sequences:
        room["max_batch_sequences"] = most
    blocks = max(
        (n * (2 + tokens // BLOCK_SIZE) for n, tokens in together if n > 1), default=0
    )  # one in reserve for each
    tokens = max(blocks * BLOCK_SIZE, ROOM if plan.callers else 0)
    if tokens > room.get("context_length", runtime.context_length):
        room["cache_tokens"] = tokens
    return room


def _measure(name: str, plan: Plan, given: dict[str, Any]) -> Report:
    from pio.benchmarks.measure import measure
    from pio.plugin.loader import load

    began = time.perf_counter()
    with load(name, **given, prefix_cache=False) as loaded:  # the same prompts come again and again
        return measure(loaded, plan, name=name, load_seconds=time.perf_counter() - began)


def _measure_random(raw: dict[str, Any], config: Path, layers: int | None, plan: Plan, given: dict[str, Any]) -> Report:
    from pio.benchmarks.measure import measure
    from pio.benchmarks.random_model import random_model

    began = time.perf_counter()
    with random_model(raw, **given, prefix_cache=False) as loaded:
        name = f"random weights of {config}" if layers is None else f"random weights of {layers} layers of {config}"
        return measure(loaded, plan, name=name, load_seconds=time.perf_counter() - began)
