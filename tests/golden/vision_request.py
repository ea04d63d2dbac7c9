"""What a request of a golden checkpoint that sees is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Clip:
    """A video of a request: its frames are pictures of the case."""

    frames: tuple[str, ...]
    fps: float


@dataclass(frozen=True)
class Request:
    """A prompt: numbers are runs of random text tokens, names are pictures, clips are videos."""

    name: str
    parts: tuple[int | str | Clip, ...]
    tower: bool = False  # store what the tower makes of its pictures too


@dataclass
class Inputs:
    """One request as the model takes it."""

    prompt: list[int]  # one token a picture or video
    ids: list[int]
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])  # tensors by the names of the model's arguments
    facts: dict[str, Any] = field(default_factory=dict[str, Any])  # what is stored about them
