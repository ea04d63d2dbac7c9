"""How fast a loaded model is, and how near to what the machine can do."""

from __future__ import annotations

import time
from math import prod
from statistics import median
from typing import TypeAlias

from pio.benchmarks.busy import busy
from pio.benchmarks.callers import measure_callers
from pio.benchmarks.copying import Copies
from pio.benchmarks.machine import Machine, around, ratio
from pio.benchmarks.report import Plan, Prefill, Report, Series, Work
from pio.benchmarks.sight import Looks
from pio.benchmarks.subject import arithmetic_of, token_ids
from pio.benchmarks.workloads import Workload
from pio.device import Device
from pio.machine import cpu_name
from pio.plugin import TextModelPlugin
from pio.system import HERE

Timed: TypeAlias = tuple[float, float]
"""Tokens a second of a prompt, and seconds to the first token of its answer."""


def measure(model: TextModelPlugin, plan: Plan, *, name: str, load_seconds: float) -> Report:
    """Measure a loaded model and the machine in turns, so that both meet the same disturbances.

    Args:
        model: The model; nothing else runs on it.
        plan: What to measure.
        name: What to call it.
        load_seconds: How long it took to load.
    """
    loaded, memory = model.loaded, model.loaded.memory
    plan = plan.fitted(loaded.context_length)
    for tokens in plan.prompt_tokens:  # pages of weights, cache and buffers are touched before anything is timed
        _prefill(model, tokens)
    _decode(model, plan)
    for workload in plan.workloads:
        _work(model, workload)
    copies = Copies(model, plan)
    peak = HERE.peak_memory()
    looks = Looks(model, plan.pictures, plan.new_tokens)
    arithmetic = arithmetic_of(model)
    machine = Machine(loaded.model.device, plan.buffer_bytes, arithmetic=arithmetic)
    decode: list[tuple[float, float]] = []
    beside: list[float] = []
    prefill: list[list[tuple[Timed, float]]] = [[] for _ in plan.prompt_tokens]
    work: list[list[tuple[float, float]]] = [[] for _ in plan.workloads]
    for _ in range(plan.rounds):
        decode.append(around(machine.bandwidth, lambda: _decode(model, plan)))
        if plan.busy:
            with busy(plan.busy):
                beside.append(_decode(model, plan))
        for tokens, rounds in zip(plan.prompt_tokens, prefill, strict=True):
            rounds.append(around(machine.operations, lambda n=tokens: _prefill(model, n)))
        for workload, runs in zip(plan.workloads, work, strict=True):
            runs.append(_work(model, workload))
        looks.round()
        copies.round()
    speed, bandwidth = (list(values) for values in zip(*decode, strict=True))
    weights, cache = weights_per_token(model, plan.sequences), cache_per_token(model, plan)
    first = [timed[0] for timed, _ in prefill[0]]
    return Report(
        model=name,
        plugin=model.manifest.name,
        formats=loaded.formats,
        parameters=loaded.config.parameters,
        processor=_processor(loaded.model.device),
        threads=loaded.model.device.threads,
        weights_bytes=memory["weights"],
        cache_bytes=memory["cache"],
        load_seconds=load_seconds,
        depth=plan.depth,
        new_tokens=plan.new_tokens,
        sequences=plan.sequences,
        bandwidth=Series.of(bandwidth),
        decode=Series.of(speed),
        weights_per_token=weights,
        cache_per_token=cache,
        bytes_per_token=weights + cache,
        bandwidth_share=(weights + cache) * ratio(speed, bandwidth),
        busy=plan.busy,
        busy_decode=Series.of(beside) if beside else None,
        busy_keeps=ratio(beside, speed) if beside else None,
        arithmetic=arithmetic,
        prefill=[
            _summed_up(rounds, tokens, operations_per_token(model, tokens), first)
            for tokens, rounds in zip(plan.prompt_tokens, prefill, strict=True)
        ],
        peak_memory=peak,
        memory_bound=int(1.08 * (memory["weights"] + memory["cache"])) + 200_000_000,
        workloads=[_done(*pair) for pair in zip(plan.workloads, work, strict=True)],
        tower_arithmetic=looks.arithmetic,
        pictures=looks.summed_up(),
        callers=measure_callers(model, plan.callers) if plan.callers else None,
        copying=copies.summed_up(),
    )


def _processor(device: Device) -> str:
    return cpu_name() if device.stream is None else f"{device}, {device.stream.gpu.facts.name}"


def _summed_up(rounds: list[tuple[Timed, float]], tokens: int, work: float, first: list[float]) -> Prefill:
    """Sum up the rounds of a length of prompt; ``first`` are the speeds of the first length."""
    speed, operations = [timed[0] for timed, _ in rounds], [machine for _, machine in rounds]
    return Prefill(
        prompt_tokens=tokens,
        speed=Series.of(speed),
        operations=Series.of(operations),
        operations_per_token=work,
        operations_share=work * ratio(speed, operations),
        time_to_first_token=median(timed[1] for timed, _ in rounds),
        against_first=ratio(speed, first),
    )


def _done(workload: Workload, rounds: list[tuple[float, float]]) -> Work:
    """Sum up the rounds of a workload."""
    tokens = workload.requests * workload.new_tokens
    return Work(
        **workload.model_dump(),
        seconds=median(seconds for seconds, _ in rounds),
        time_to_first_token=median(first for _, first in rounds),
        speed=Series.of([tokens / seconds for seconds, _ in rounds]),
    )


def weights_per_token(model: TextModelPlugin, sequences: int = 1) -> float:
    """Return the bytes of weights that decoding one token reads.

    A step reads all of them for all sequences together, but of an untied embedding one row a sequence, of experts
    those that some token chose, and of a tower none.
    """
    loaded = model.loaded
    tower = 0 if loaded.model.encoder is None else loaded.model.encoder.nbytes
    table, head = loaded.model.embed_tokens.weight, loaded.model.lm_head.weight
    experts = loaded.expert_bytes
    step = loaded.memory["weights"] - tower - experts * (1.0 - loaded.config.expert_share(sequences))
    if head is table:
        return step / sequences
    return (step - table.nbytes) / sequences + table.nbytes // table.shape[0]


def cache_per_token(model: TextModelPlugin, plan: Plan) -> float:
    """Return the bytes of caches that one token of an answer moves, on average.

    It reads keys and values of itself and those before it, in layers with a window only of the last of them, and moves
    the states of recurrent layers in and out.
    """
    config, cache = model.loaded.config, model.loaded.cache
    contexts = range(plan.depth + 1, plan.depth + plan.new_tokens)  # the first token of an answer is the prompt's
    windows = [config.window(layer) for layer in range(config.num_hidden_layers) if config.attends(layer)]
    seen = sum(min(n, window or n) for n in contexts for window in windows) / len(contexts)
    return cache.format.position_bytes * seen + 2 * cache.state_bytes  # a state is read and written


def operations_per_token(model: TextModelPlugin, tokens: int) -> float:
    """Return the operations for one of a prompt's tokens: two a weight, and attention to those before.

    The output head and the last layer's feed-forward block count once a prompt, for its last token.
    """
    config = model.loaded.config
    head = prod(model.loaded.model.lm_head.weight.shape)
    tables = head if config.tie_word_embeddings else 2 * head
    attention = config.attention_operations((tokens + 1) / 2)
    feed = config.last_feed_parameters
    met = config.active_parameters - config.tower_parameters
    return 2 * (met - tables - feed) + attention + 2 * (feed + head) / tokens


def _prefill(model: TextModelPlugin, tokens: int) -> Timed:
    """Read a prompt; return its tokens a second, and the seconds to the first token of the answer."""
    timings = model.generate(token_ids(model, tokens), max_new_tokens=1, temperature=0.0).timings
    return tokens / timings.prefill, timings.time_to_first_token


def _decode(model: TextModelPlugin, plan: Plan) -> float:
    """Answer behind prompts of the plan's depth; return tokens a second, of all sequences together."""
    prompts = [token_ids(model, plan.depth, shift) for shift in range(plan.sequences)]
    answers = model.infer_batch(prompts, max_new_tokens=plan.new_tokens, temperature=0.0, ignore_eos=True)
    return sum(answer.timings.tokens_per_second for answer in answers)


def _work(model: TextModelPlugin, workload: Workload) -> tuple[float, float]:
    """Make the requests of a workload; return the seconds to the last token, and to the first of the slowest answer."""
    prompts = [token_ids(model, workload.prompt_tokens, shift) for shift in range(workload.requests)]
    began = time.perf_counter()
    answers = model.infer_batch(prompts, max_new_tokens=workload.new_tokens, temperature=0.0, ignore_eos=True)
    return time.perf_counter() - began, max(answer.timings.time_to_first_token for answer in answers)
