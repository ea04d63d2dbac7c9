"""What ``pio bench`` is to measure, and what it found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from pio.benchmarks.machine import BUFFER
from pio.benchmarks.workloads import Workload


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        prompt_tokens: Lengths of the prompts that prefill is timed on.
        depth: Tokens of each sequence before the answer that decode is timed on.
        new_tokens: Tokens of that answer.
        sequences: How many sequences are decoded together.
        busy: Processes that compute while decode is timed once more; 0 leaves that out.
        rounds: How often each is measured; medians count.
        buffer_bytes: What is read to measure the bandwidth.
        workloads: What is run besides, as programs might.
        pictures: Width and height of pictures that are looked at, one at a time.
        callers: Threads that make requests at the same time; 0 leaves that out.
        copy: Tokens between edits of an answer that is drafted; 0 leaves that out.
        copy_tokens: Tokens of that answer.
    """

    prompt_tokens: tuple[int, ...] = (512,)
    depth: int = 32
    new_tokens: int = 64
    sequences: int = 1
    busy: int = 0
    rounds: int = 5
    buffer_bytes: int = BUFFER
    workloads: tuple[Workload, ...] = ()
    pictures: tuple[tuple[int, int], ...] = ()
    callers: int = 0
    copy: int = 0
    copy_tokens: int = 1024

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer, workloads aside."""
        return max(self.new_tokens, self.copy_tokens if self.copy else 0)

    @property
    def context(self) -> int:
        """Tokens of the longest sequence."""
        shape = max(*self.prompt_tokens, self.depth + self.longest_answer - 1) + 1
        return max(shape, *(workload.context for workload in self.workloads), 0)

    def fitted(self, context: int) -> Plan:
        """Return the plan cut to a model's context."""
        new_tokens = min(self.new_tokens, max(2, context // 2))
        depth = min(self.depth, max(1, context - new_tokens))
        return replace(
            self,
            prompt_tokens=tuple(min(tokens, max(1, context - 1)) for tokens in self.prompt_tokens),
            depth=depth,
            new_tokens=new_tokens,
            copy_tokens=min(self.copy_tokens, max(2, context - depth)) if self.copy else self.copy_tokens,
            workloads=tuple(workload.fitted(context) for workload in self.workloads),
        )


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


@dataclass(frozen=True, slots=True)
class Prefill:
    """How fast prompts of one length are read.

    Attributes:
        prompt_tokens: The length.
        speed: Prompt tokens a second, median and each round.
        operations: The machine's best operations a second, just before and after; median and each round.
        operations_per_token: Operations on weights and in attention for a token of the prompt, on average.
        operations_share: operations_per_token x speed / operations, the median of the rounds.
        time_to_first_token: From the request to the first token of the answer, median.
        against_first: speed / speed with the first of the lengths, the median of the rounds.
    """

    prompt_tokens: int
    speed: Series
    operations: Series
    operations_per_token: float
    operations_share: float
    time_to_first_token: float
    against_first: float


@dataclass(frozen=True, slots=True)
class Work:
    """How fast a workload was done.

    Attributes:
        name: The workload.
        prompt_tokens: Tokens of each prompt.
        new_tokens: Tokens of each answer.
        requests: How many were made at once.
        seconds: From the first request to the last token, median.
        time_to_first_token: From a request to the first token of its answer, the slowest of a round; median.
        speed: Tokens of all answers together, for each of those seconds.
    """

    name: str
    prompt_tokens: int
    new_tokens: int
    requests: int
    seconds: float
    time_to_first_token: float
    speed: Series


@dataclass(frozen=True, slots=True)
class Sight:
    """How fast the model looks at a picture of one size, and at nothing else.

    Attributes:
        width: Pixels of the picture.
        height: Pixels of the picture.
        seen_width: Pixels in which the model sees it.
        seen_height: Pixels in which the model sees it.
        tokens: Tokens that stand for it.
        prompt_tokens: Those, and the text around it.
        prepare: Seconds of resizing it, and of writing the prompt, median.
        encode: Seconds of the tower, median.
        prefill: Seconds from there to the first token of the answer, median.
        time_to_first_token: From the picture's pixels to the first token of the answer, median.
        decode: Tokens a second of an answer as long as ``Report.new_tokens`` behind it, median.
        operations_per_picture: Operations of the tower.
        operations: The machine's best operations a second with what the tower multiplies, just before and after; median
            and each round.
        operations_share: operations_per_picture / encode / operations, the median of the rounds.
        peak_memory: Most bytes of this process in memory, those of the pictures before it included; None where unknown.
    """

    width: int
    height: int
    seen_width: int
    seen_height: int
    tokens: int
    prompt_tokens: int
    prepare: float
    encode: float
    prefill: float
    time_to_first_token: float
    decode: float
    operations_per_picture: float
    operations: Series
    operations_share: float
    peak_memory: int | None


@dataclass(frozen=True, slots=True)
class Callers:
    """How a model serves many callers at once.

    Attributes:
        requests: How many, of mixed length.
        threads: From how many threads.
        loops: And from how many event loops.
        tokens: Of all answers.
        one_by_one: Seconds of all of them, one after another.
        at_once: Seconds where all are made at the same time.
        times_as_fast: one_by_one / at_once.
        equal: How many answers have the same tokens both times.
        step: Seconds of a step of one answer.
        chunk: Seconds of a step with a whole chunk of a long prompt, its mean.
        long_prompt: Tokens of that prompt.
        short_prompt: Tokens of one that comes when the long one has begun.
        first_token: Seconds from that request to its first token, the median of five.
        silence: Seconds between two tokens of an answer beside long prompts that never end, median.
        silence_p99: The same, as 99 of 100 are not longer.
    """

    requests: int
    threads: int
    loops: int
    tokens: int
    one_by_one: float
    at_once: float
    times_as_fast: float
    equal: int
    step: float
    chunk: float
    long_prompt: int
    short_prompt: int
    first_token: float
    silence: float
    silence_p99: float


@dataclass(frozen=True, slots=True)
class Copying:
    """How fast answers come that were foreseen but for edits; see ``copying``.

    Attributes:
        new_tokens: Length of each answer.
        edits_every: Tokens between two edits, on average.
        plain: Tokens a second without drafts, of all sequences together; median and each round.
        drafted: The same with drafts.
        times_as_fast: drafted / plain, the median of the rounds.
        drafted_tokens: Tokens that steps of the last round computed on the chance that they come next.
        accepted_tokens: Those of them that came.
        checks: Steps with such tokens.
        equal: Answers with the same tokens as without drafts.
    """

    new_tokens: int
    edits_every: int
    plain: Series
    drafted: Series
    times_as_fast: float
    drafted_tokens: int
    accepted_tokens: int
    checks: int
    equal: int


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
        depth: Tokens before each answer.
        new_tokens: Length of the answer.
        sequences: How many answers were decoded together.
        bandwidth: Bytes read a second, just before a decode's prompt and just after its answer; median and each round.
        decode: Tokens a second of all sequences together, median and each round.
        weights_per_token: Bytes of weights that one token reads; sequences share what a step reads.
        cache_per_token: Bytes of keys and values, scales included, that one token reads, the mean of the answer's.
        bytes_per_token: Both together.
        bandwidth_share: bytes_per_token x decode / bandwidth, the median of the rounds.
        busy: Processes that computed while ``busy_decode`` was timed.
        busy_decode: As ``decode``, in turns with it; None without such processes.
        busy_keeps: busy_decode / decode, the median of the rounds; None likewise.
        arithmetic: What layers multiply: int8 where weights are quantized, else what their inputs are rounded to.
        prefill: One entry for each length of prompt.
        peak_memory: Most bytes of this process in memory, before the machine was measured; None where unknown.
        memory_bound: 1.08 x (weights + cache) + 200 MB, which it is held against.
        workloads: One entry for each workload; empty where the plan has none.
        tower_arithmetic: As ``arithmetic``, of the tower that looks at pictures; None where no picture was.
        pictures: One entry for each size of picture; empty where the plan has none.
        callers: Many callers at once; None where the plan has none.
        copying: Answers that were foreseen; None where the plan has none.
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
    depth: int
    new_tokens: int
    sequences: int
    bandwidth: Series
    decode: Series
    weights_per_token: float
    cache_per_token: float
    bytes_per_token: float
    bandwidth_share: float
    busy: int
    busy_decode: Series | None
    busy_keeps: float | None
    arithmetic: str
    prefill: list[Prefill]
    peak_memory: int | None
    memory_bound: int
    workloads: list[Work]
    tower_arithmetic: str | None
    pictures: list[Sight]
    callers: Callers | None
    copying: Copying | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)
