"""How fast a loaded model is, and how near to what the machine can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

from pio.cli.bench_machine import BUFFER, Machine
from pio.cli.process import peak_memory
from pio.machine import cpu_name
from pio.ops.quantized import FORMATS
from pio.plugin import TextModelPlugin

DECODE_PROMPT = 32  # tokens before the first one that is timed


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        prompt_tokens: Length of the prompt that prefill is timed on.
        new_tokens: Tokens that decode is timed on.
        rounds: How often each is measured; medians count.
        buffer_bytes: What is read to measure the bandwidth.
    """

    prompt_tokens: int = 512
    new_tokens: int = 64
    rounds: int = 5
    buffer_bytes: int = BUFFER

    def fitted(self, context: int) -> Plan:
        """Return the plan cut to a model's context."""
        return Plan(
            min(self.prompt_tokens, max(1, context - 1)),
            min(self.new_tokens, max(2, context - DECODE_PROMPT - 1)),
            self.rounds,
            self.buffer_bytes,
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured; bytes, seconds, tokens and operations a second.

    Attributes:
        model: Folder or config.
        plugin: The plugin that ran it.
        formats: How the matrices of layers, and of tables (embedding and output head), are held.
        parameters: Number of weights.
        processor: Name of the processor.
        threads: Over how many threads kernels split.
        weights_bytes: All weights.
        cache_bytes: Reserved for keys and values.
        load_seconds: From the call to a model that is ready, compilation included.
        prompt_tokens: Length of the prompt.
        new_tokens: Length of the answer.
        bandwidth: Bytes read a second, just before and after decoding; median and each round.
        arithmetic: What layers compute with: float32, or int8 where weights are quantized.
        operations: Such operations a second at best, just before and after prefill; median and each round.
        decode: Tokens a second, median and each round.
        bytes_per_token: Weights that one token reads.
        bandwidth_share: bytes_per_token x decode / bandwidth, the median of the rounds.
        prefill: Prompt tokens a second, median and each round.
        operations_per_token: Operations on weights and in attention for a token of the prompt, on average.
        operations_share: operations_per_token x prefill / operations, the median of the rounds.
        time_to_first_token: From the request with that prompt to its first token, median.
        peak_memory: Most bytes of this process in memory, before the machine was measured; None where unknown.
        memory_bound: 1.1 x (weights + cache) + 250 MB, which it is held against.
    """

    model: str
    plugin: str
    formats: dict[str, str]
    parameters: int
    processor: str
    threads: int
    weights_bytes: int
    cache_bytes: int
    load_seconds: float
    prompt_tokens: int
    new_tokens: int
    bandwidth: Series
    arithmetic: str
    operations: Series
    decode: Series
    bytes_per_token: int
    bandwidth_share: float
    prefill: Series
    operations_per_token: float
    operations_share: float
    time_to_first_token: float
    peak_memory: int | None
    memory_bound: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity, measured several times."""

    median: float
    best: float
    rounds: list[float]

    @classmethod
    def of(cls, values: list[float]) -> Series:
        """Sum up measurements of a speed."""
        return cls(median(values), max(values), values)


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
    prefill: list[float] = []
    first: list[float] = []
    decode: list[float] = []
    _prefill(model, plan, [], [])  # pages of weights, cache and buffers are touched before anything is timed
    _decode(model, plan, [])
    peak = peak_memory()
    integers = loaded.formats["layers"] in FORMATS
    machine = Machine(loaded.model.threads, plan.buffer_bytes, integers=integers)
    bandwidth: list[float] = []
    operations: list[float] = []
    for _ in range(plan.rounds):
        bandwidth.append(_around(machine.bandwidth, lambda: _decode(model, plan, decode)))
        operations.append(_around(machine.operations, lambda: _prefill(model, plan, prefill, first)))
    read, work = bytes_per_token(model), operations_per_token(model, plan.prompt_tokens)
    return Report(
        model=name,
        plugin=model.manifest.name,
        formats=loaded.formats,
        parameters=loaded.config.parameters,
        processor=cpu_name(),
        threads=loaded.model.threads,
        weights_bytes=memory["weights"],
        cache_bytes=memory["cache"],
        load_seconds=load_seconds,
        prompt_tokens=plan.prompt_tokens,
        new_tokens=plan.new_tokens,
        bandwidth=Series.of(bandwidth),
        arithmetic="int8" if integers else "float32",
        operations=Series.of(operations),
        decode=Series.of(decode),
        bytes_per_token=read,
        bandwidth_share=median(read * d / b for d, b in zip(decode, bandwidth, strict=True)),
        prefill=Series.of(prefill),
        operations_per_token=work,
        operations_share=median(work * p / f for p, f in zip(prefill, operations, strict=True)),
        time_to_first_token=median(first),
        peak_memory=peak,
        memory_bound=int(1.1 * (memory["weights"] + memory["cache"])) + 250_000_000,
    )


def _around(speed: Callable[[], float], work: Callable[[], None]) -> float:
    """Do the work; return the machine's speed around it, which on shared machines doubles and halves in seconds."""
    before = speed()
    work()
    return (before + speed()) / 2


def bytes_per_token(model: TextModelPlugin) -> int:
    """Return the bytes of weights that decoding one token reads: all, but of an untied embedding one row only."""
    loaded = model.loaded
    table, head = loaded.model.embed_tokens.weight, loaded.model.lm_head.weight
    return loaded.memory["weights"] - (0 if head is table else table.nbytes - table.nbytes // table.shape[0])


def operations_per_token(model: TextModelPlugin, tokens: int) -> float:
    """Return the operations for one of a prompt's tokens: two a weight, and attention to those before.

    The output head counts once a prompt, for its last token.
    """
    config = model.loaded.config
    head = prod(model.loaded.model.lm_head.weight.shape)
    tables = head if config.tie_word_embeddings else 2 * head
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * (tokens + 1) / 2
    return 2 * (config.parameters - tables) + attention + 2 * head / tokens


def _prompt(model: TextModelPlugin, tokens: int) -> list[int]:
    return [1 + 7919 * i % (model.loaded.model.vocab_size - 1) for i in range(tokens)]


def _prefill(model: TextModelPlugin, plan: Plan, speed: list[float], first: list[float]) -> None:
    timings = model.generate(_prompt(model, plan.prompt_tokens), max_new_tokens=1, temperature=0.0).timings
    speed.append(plan.prompt_tokens / timings.prefill)
    first.append(timings.time_to_first_token)


def _decode(model: TextModelPlugin, plan: Plan, speed: list[float]) -> None:
    length = min(DECODE_PROMPT, max(1, model.loaded.context_length - plan.new_tokens - 1))
    result = model.generate(_prompt(model, length), max_new_tokens=plan.new_tokens, temperature=0.0, ignore_eos=True)
    speed.append(result.timings.tokens_per_second)
