"""Engines take turns: in every round each is measured once at everything, while the others sleep."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import worker
from benchmarks.peers.catalogue import BASE, PEERS, Contestant
from benchmarks.peers.checkpoint import decoder_of, name_of, sees, write_checkpoint
from benchmarks.peers.environments import python_of
from benchmarks.peers.process import PeerError, Worker
from benchmarks.peers.shapes import is_mixture, shapes
from benchmarks.peers.sights import ENCODE, PICTURE, QUESTION, context_of, write_picture
from pio.benchmarks.random_model import cut

MEMORY = "benchmarks.peers.memory"
MEASURES = ("prefill", "decode", "together", "start")  # of models that do not see; of those that do, sizes of pictures


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        config: The config.json whose shapes the model has.
        cache: Folder of environments, models and logs.
        rounds: How often each engine is measured.
        threads: Over how many threads each computes.
        measures: Which of ``MEASURES``, where the model does not see.
        prompt_tokens: Length of the prompt of prefill.
        depth: Length of the prompt before each timed answer.
        new_tokens: Tokens of the answer of one sequence; a batch answers with half as many.
        sequences: How many are decoded together.
        seed: Of weights and prompts.
        layers: How many of the config's layers the model has; 0 is all.
        pictures: Sizes, like "1024x768", that a model that sees is shown.
    """

    config: Path
    cache: Path
    rounds: int = 5
    threads: int = 1
    measures: tuple[str, ...] = MEASURES
    prompt_tokens: int = 512
    depth: int = 32
    new_tokens: int = 64
    sequences: int = 8
    seed: int = 0
    layers: int = 0
    pictures: tuple[str, ...] = ()


@dataclass(slots=True)
class Result:
    """What one contestant did; a value a round.

    Attributes:
        contestant: Who.
        version: Of the engine.
        weights: Bytes that a token reads.
        peak_memory: Most bytes of its process.
        rounds: Tokens a second, and for ``start`` and sizes of pictures seconds; ``bandwidth`` is what the machine
            read around ``decode``.
        idle_share: Most that its process computed while it should have slept, of one core.
        pages_read: How often it waited for the disk while it was measured: its weights were not in memory any more.
        tokens: Of a prompt with a picture, by the picture's size.
    """

    contestant: Contestant
    version: str = ""
    weights: int = 0
    peak_memory: int = 0
    rounds: dict[str, list[float]] = field(default_factory=dict)
    idle_share: float = 0.0
    pages_read: int = 0
    tokens: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


class Sitting:
    """One comparison: a model, and a process for each contestant that works.

    Args:
        plan: What to measure.
        say: Told what goes on.

    Raises:
        PioError: The config has fewer layers than are asked for, or no plugin knows it.
        ValueError: A model that sees is shown nothing, or another one a picture.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan, self._say = plan, say
        config = json.loads(plan.config.read_text("utf-8"))
        self._sees = sees(config)
        if self._sees != bool(plan.pictures):
            raise ValueError("--picture: expected a size where a model sees, and nothing where it does not")
        if plan.layers:
            fewer = cut(decoder_of(config), plan.layers)
            config = config | {"text_config": fewer} if self._sees else fewer
        self._mixture = is_mixture(shapes(config))
        self._vocabulary: int = decoder_of(config)["vocab_size"]
        self._context = max(plan.prompt_tokens + 1, plan.depth + plan.new_tokens)
        if self._sees:
            self._context = context_of(plan.pictures, config)
        self._measures = tuple(f"{PICTURE} {size}" for size in plan.pictures) or plan.measures
        self._folder = plan.cache / "models" / name_of(config, plan.seed)
        say(f"weights: {self._folder / 'source'}")
        self._source = write_checkpoint(self._folder / "source", config, plan.config.parent, plan.seed)
        self.failed: dict[str, str] = {}
        self.results: list[Result] = []
        self._workers: dict[str, Worker] = {}
        self._close = ExitStack()

    def __enter__(self) -> Sitting:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def prepare(self, contestants: list[Contestant]) -> None:
        """Convert and load the model for each contestant, and warm it up; those that cannot are put in ``failed``."""
        base = Contestant(BASE, "memory", "memory")
        self._memory = self._worker(base, MEMORY)
        self._buffer: int = self._memory.request("load", job=self._job(base))["weights"]
        for contestant in contestants:
            try:
                if self._mixture and not PEERS[contestant.engine].mixtures:
                    raise PeerError(f"{contestant.engine} is driven with dense models only")
                if self._sees and not PEERS[contestant.engine].seeing:
                    raise PeerError(f"{contestant.engine} is driven with models of text only")
                self._convert(contestant)
                self._say(f"{contestant.name}: loading")
                process = self._worker(contestant)
                facts = process.request("load", job=self._job(contestant))
                result = Result(contestant, facts["version"], facts["weights"])
                self._workers[contestant.name] = process
                for measure in self._measures:
                    if measure != "start":
                        self._measure(result, measure, -1)
                self.results.append(result)
            except PeerError as error:
                self.failed[contestant.name] = str(error)
                self._say(f"left out: {error}")

    def run(self) -> list[Result]:
        """Do the rounds; each begins with another contestant."""
        for i in range(self.plan.rounds):
            shift = i % max(1, len(self.results))
            order = self.results[shift:] + self.results[:shift]
            for measure in self._measures:
                for result in order:
                    self._turn(result, measure, i)
            self._say(f"round {i + 1} of {self.plan.rounds} done")
        for result in self.results:
            result.peak_memory = self._workers[result.contestant.name].peak_memory()
        return self.results

    def _turn(self, result: Result, measure: str, number: int) -> None:
        name = result.contestant.name
        idle = {r.contestant.name: r for r in self.results if r.contestant.name != name}
        before, began = {other: self._workers[other].cpu_seconds() for other in idle}, time.perf_counter()
        if measure == "decode":
            bandwidth = [self._bandwidth(), 0.0]
            value = self._measure(result, measure, number)
            bandwidth[1] = self._bandwidth()
            result.rounds.setdefault("bandwidth", []).append(sum(bandwidth) / 2)
        elif measure == "start":
            value = self._first_token(result.contestant, number)
        else:
            value = self._measure(result, measure, number)
        result.rounds.setdefault(measure, []).append(value)
        self._say(f"round {number + 1}: {name}: {measure}: {value:.2f}")  # for who does not wait for the report
        took = time.perf_counter() - began
        for other, sleeper in idle.items():
            spent = self._workers[other].cpu_seconds() - before[other]
            sleeper.idle_share = max(sleeper.idle_share, spent / took)

    def _measure(self, result: Result, measure: str, number: int) -> float:
        """Return the tokens a second of one answer, or the seconds of its first token where it is about a picture."""
        if measure.startswith(PICTURE):
            return self._look(result, measure.partition(" ")[2], number)
        plan, process = self.plan, self._workers[result.contestant.name]
        before = process.pages_read()
        if measure == "prefill":
            # the first of two is not timed: caches and clocks are as the other contestants left them
            first, *prompts = self._prompts(number, 2, plan.prompt_tokens)
            process.request("generate", prompts=[first], new_tokens=1)
            answer = 1
        elif measure == "decode":
            prompts, answer = self._prompts(number, 1, plan.depth), plan.new_tokens
        else:
            prompts, answer = self._prompts(number, plan.sequences, plan.depth), max(2, plan.new_tokens // 2)
        seconds: list[float] = process.request("generate", prompts=prompts, new_tokens=answer)["seconds"]
        if number >= 0:  # what comes before is there to read them
            result.pages_read += process.pages_read() - before
        if measure == "prefill":
            return plan.prompt_tokens / seconds[0]
        return len(prompts) * (answer - 1) / (seconds[-1] - seconds[0])

    def _look(self, result: Result, size: str, number: int) -> float:
        """Return the seconds from a picture to the first token; as it warms up, see that all have as many tokens."""
        process = self._workers[result.contestant.name]
        picture = self._folder / "pictures" / f"{size}-{number}.png"
        if not picture.is_file():
            write_picture(picture, size, f"{self.plan.seed} {number}")
        before = process.pages_read()
        seen = process.request("see", picture=picture, text=QUESTION)
        if number >= 0:
            result.pages_read += process.pages_read() - before
            result.rounds.setdefault(f"{ENCODE} {size}", []).append(seen["encode"])
        result.tokens[size] = seen["tokens"]
        for other in self.results:
            if other.tokens[size] != seen["tokens"]:
                given = f"{other.tokens[size]} of {other.contestant.name}"
                raise PeerError(f"{size} and the question are {seen['tokens']} tokens and not the {given}")
        return seen["seconds"]

    def _first_token(self, contestant: Contestant, number: int) -> float:
        """Return the seconds from the start of a process to its first token."""
        process = self._worker(contestant)
        process.request("load", job=self._job(contestant))
        process.request("generate", prompts=self._prompts(number, 1, self.plan.depth), new_tokens=1)
        took = time.perf_counter() - process.started
        process.close()
        return took

    def _bandwidth(self) -> float:
        reply = self._memory.request("generate", prompts=[], new_tokens=1)
        return self._buffer / reply["seconds"][0]

    def _prompts(self, number: int, count: int, length: int) -> list[list[int]]:
        """Return prompts that no round has seen, so that no cache of prompts helps."""
        source = random.Random(f"{self.plan.seed} {number} {count} {length}")
        return [[source.randrange(1, self._vocabulary) for _ in range(length)] for _ in range(count)]

    def _convert(self, contestant: Contestant) -> None:
        job = self._job(contestant)
        folder: Path = job["converted"]
        if (folder / worker.MARK).is_file() and contestant.engine != BASE:  # pio changes while one works on it
            return
        self._say(f"{contestant.name}: converting")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        process = self._worker(contestant)
        try:
            process.request("convert", job=job)
        finally:
            process.close()

    def _job(self, contestant: Contestant) -> dict[str, Any]:
        plan = self.plan
        return asdict(
            worker.Job(
                source=self._source,
                converted=self._folder / contestant.engine / contestant.variant,
                variant=contestant.variant,
                threads=plan.threads,
                sequences=plan.sequences,
                context=self._context,
                shared_context=plan.depth + max(2, plan.new_tokens // 2),
            )
        )

    def _worker(self, contestant: Contestant, module: str | None = None) -> Worker:
        log = self.plan.cache / "logs" / f"{contestant.engine}-{contestant.variant}.log"
        python = python_of(self.plan.cache, contestant.engine)
        peer = PEERS[contestant.engine]
        usual = peer.seeing if self._sees else peer.module
        process = Worker(python, module or usual, log, self.plan.threads)
        self._close.callback(process.close)
        return process
