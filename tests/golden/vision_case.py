"""What the tests of golden checkpoints that see share: requests, their pictures, and what was expected of them."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "qwen3_vl"
CASES = sorted(file.parent.name for file in FOLDER.glob("*/config.json"))


@dataclass(frozen=True)
class Numbers:
    """A stored float32 tensor, row by row."""

    shape: list[int]
    values: array[float]


@dataclass(frozen=True)
class VideoAsked:
    """A video of a request: files of all frames and their rate, and what the processor makes of them.

    Attributes:
        frames: Files of all frames, before any is dropped.
        fps: Frames a second.
        sampled: Indices of the frames that the processor takes.
        timestamps: Text before each time step.
        timestamp_ids: The same as tokens.
        grid: Time steps, rows and columns in patches.
    """

    frames: list[Path]
    fps: float
    sampled: list[int]
    timestamps: list[str]
    timestamp_ids: list[list[int]]
    grid: list[int]


@dataclass(frozen=True)
class RequestAsked:
    """One request and what was expected of it.

    Attributes:
        index: Its place in the file, by which the stored tensors are named.
        name: What is in it.
        prompt: Tokens, one for each picture and each video.
        ids: Tokens, as many for a picture as the tower gives, videos with their time stamps.
        positions: Three lists, one place a token: time, row, column.
        rope_delta: What is added to the index of a token of the answer for its place on all three axes.
        greedy: The 24 greedy tokens; marks of pictures and videos are never sampled.
        margins: By how much each of them won.
        pictures: Files in the order of the prompt.
        grids: Of each picture (1, rows, columns) in patches.
        videos: In the order of the prompt.
    """

    index: int
    name: str
    prompt: list[int]
    ids: list[int]
    positions: list[list[int]]
    rope_delta: int
    greedy: list[int]
    margins: list[float]
    pictures: list[Path]
    grids: list[list[int]]
    videos: list[VideoAsked]


def answers(case: str) -> dict[str, Any]:
    """Return requests.json: `dtype`, `suppressed` (tokens that are never sampled), `requests`."""
    return json.loads((FOLDER / case / "expected" / "requests.json").read_text("utf-8"))


def requests(case: str) -> list[RequestAsked]:
    pictures = FOLDER / case / "pictures"
    found: list[RequestAsked] = []
    for index, entry in enumerate(answers(case)["requests"]):
        videos = [
            VideoAsked(**{**video, "frames": [pictures / name for name in video["frames"]]})
            for video in entry.get("videos", ())
        ]
        same = {k: entry[k] for k in ("name", "prompt", "ids", "positions", "rope_delta", "greedy", "margins")}
        files = [pictures / name for name in entry.get("pictures", ())]
        found.append(RequestAsked(index, **same, pictures=files, grids=entry.get("image_grid_thw", []), videos=videos))
    return found


def tensors(file: Path) -> dict[str, Numbers]:
    """Read a safetensors file of float32 tensors."""
    data = file.read_bytes()
    body = 8 + int.from_bytes(data[:8], "little")
    found: dict[str, Numbers] = {}
    for name, entry in json.loads(data[8:body]).items():
        start, end = entry["data_offsets"]
        assert entry["dtype"] == "F32"
        found[name] = Numbers(entry["shape"], array("f", data[body + start : body + end]))
    return found


def expected_logits(case: str) -> list[Numbers]:
    """Of each request: (expanded tokens, vocabulary)."""
    found = tensors(FOLDER / case / "expected" / "logits.safetensors")
    return [found[f"logits.{i}"] for i in range(len(found))]


def expected_tower(case: str) -> dict[int, dict[str, Numbers]]:
    """By the index of a request: `image.merged`, `image.deepstack.0`, … and `video.…`, (merged tokens, text width).

    The rows of all pictures follow each other, as in the prompt, and so do those of all videos.
    """
    by_request: dict[int, dict[str, Numbers]] = {}
    for name, numbers in tensors(FOLDER / case / "expected" / "tower.safetensors").items():
        index, rest = name.split(".", 1)
        by_request.setdefault(int(index), {})[rest] = numbers
    return by_request


def relative_l2(found: Sequence[float], wanted: Sequence[float]) -> float:
    assert len(found) == len(wanted)
    difference = math.fsum((a - b) ** 2 for a, b in zip(found, wanted, strict=True))
    return math.sqrt(difference / math.fsum(b * b for b in wanted))


def cosine(found: Sequence[float], wanted: Sequence[float]) -> float:
    assert len(found) == len(wanted)
    product = math.fsum(a * b for a, b in zip(found, wanted, strict=True))
    return product / math.sqrt(math.fsum(a * a for a in found) * math.fsum(b * b for b in wanted))
