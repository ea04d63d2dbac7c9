"""The side of a comparison that runs in an engine's own environment: requests in, results out, a JSON object a line."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

MARK, READ = "converted.txt", "bytes_read.txt"


@dataclass(frozen=True, slots=True)
class Job:
    """What an engine loads.

    Attributes:
        source: The model as Hugging Face stores it, in bfloat16.
        converted: Folder for what the engine makes of it.
        variant: How the engine stores the weights.
        threads: Over how many threads it computes.
        sequences: How many sequences it decodes together.
        context: Tokens of a sequence that is alone, prompt and answer.
        shared_context: Tokens of each sequence of a batch.
    """

    source: Path
    converted: Path
    variant: str
    threads: int
    sequences: int
    context: int
    shared_context: int

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Job:
        """Return the job that a request describes."""
        folders = {name: Path(fields[name]) for name in ("source", "converted")}
        return cls(**{**fields, **folders})


class Engine(Protocol):
    """What each engine's file implements."""

    def convert(self, job: Job) -> None:
        """Make ``job.converted``, which exists and is empty, from ``job.source``."""
        ...

    def load(self, job: Job) -> dict[str, Any]:
        """Load the model; return ``version`` of the engine and ``weights``, the bytes that a token reads."""
        ...

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        """Answer all prompts together, greedily, on and on; return the seconds after which each had n tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What an engine says after it looked at a picture.

    Attributes:
        seconds: From the file to the first token of the answer.
        tokens: Of the prompt, those that stand for the picture and those of the chat template included.
        encode: Seconds of these until the picture was embeddings, its sizing included.
    """

    seconds: float
    tokens: int
    encode: float


class SeeingEngine(Engine, Protocol):
    """What the files implement of engines that run models that see."""

    def see(self, picture: Path, text: str) -> Seen:
        """Answer a user's message with one token, greedily: a picture, and the text after it."""
        ...


def counted(job: Job, count: Callable[[], int]) -> int:
    """Return the bytes that a token reads; they are counted once a conversion, so that no timed start does it."""
    kept = job.converted / READ
    if not kept.is_file():
        kept.write_text(str(count()), "utf-8")
    return int(kept.read_text("utf-8"))


def serve(engine: Engine | SeeingEngine) -> None:
    """Do what the runner asks for until it closes the pipe.

    Whatever an engine prints goes to standard error, which the runner keeps in a file.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def load(job: dict[str, Any]) -> dict[str, Any]:
        return engine.load(Job.read(job))

    def convert(job: dict[str, Any]) -> dict[str, Any]:
        read = Job.read(job)
        engine.convert(read)
        (read.converted / MARK).write_text(read.variant, "utf-8")
        return {}

    def generate(prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        return {"seconds": engine.generate(prompts, new_tokens)}

    def see(picture: str, text: str) -> dict[str, Any]:
        return asdict(engine.see(Path(picture), text))

    calls: dict[str, Callable[..., dict[str, Any]]] = {
        "load": load,
        "convert": convert,
        "generate": generate,
        "see": see,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = calls[request.pop("do")](**request)
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
