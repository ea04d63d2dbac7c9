"""What the tests of golden checkpoints share: a folder's expected answers, read without any library, and questions."""

from __future__ import annotations

import json
import math
from array import array
from pathlib import Path
from typing import Any

PROFILES = ("accuracy", "balanced", "performance")
TOLERANCE = 2e-3  # relative L2 of the logits
NEW_TOKENS = 24


def greedy(model: Any, ids: list[int], **fields: Any) -> Any:
    return model.generate(ids, temperature=0.0, max_new_tokens=NEW_TOKENS, ignore_eos=True, **fields)


def greedy_together(model: Any, prompts: list[list[int]], **fields: Any) -> list[Any]:
    return model.infer_batch(prompts, temperature=0.0, max_new_tokens=NEW_TOKENS, ignore_eos=True, **fields)


def logits_bytes(model: Any, ids: list[int]) -> bytes:
    return model.logits(ids).memoryview().tobytes()


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text("utf-8"))


def answers(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "expected" / "greedy.json").read_text("utf-8"))


def longest_prompt(folder: Path) -> list[int]:
    return max((prompt["ids"] for prompt in answers(folder)["prompts"]), key=len)


def expected_logits(folder: Path) -> dict[str, tuple[list[int], array[float]]]:
    """Shape and float32 values by name."""
    data = (folder / "expected" / "logits.safetensors").read_bytes()
    body = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:body]).items():
        start, end = entry["data_offsets"]
        assert entry["dtype"] == "F32"
        tensors[name] = (entry["shape"], array("f", data[body + start : body + end]))
    return tensors


def relative_l2(found: list[list[float]], wanted: array[float]) -> float:
    flat = [value for row in found for value in row]
    assert len(flat) == len(wanted)
    difference = math.fsum((a - b) ** 2 for a, b in zip(flat, wanted, strict=True))
    return math.sqrt(difference / math.fsum(b * b for b in wanted))


def tolerance(folder: Path, profile: str, exact: float, rounded: float) -> float:
    """How far logits may be off; `exact` is for float32 weights that are computed with as they are, `rounded` for
    inputs of layers that are rounded to bfloat16."""
    dtype = answers(folder)["dtype"]
    if dtype == "float32" and profile == "accuracy":
        return exact
    return rounded if dtype == "bfloat16" and profile == "performance" else TOLERANCE


def logits_errors(model: Any, folder: Path) -> dict[int, float]:
    """Relative L2 of the logits of each prompt, by its length."""
    wanted, errors = expected_logits(folder), {}
    for i, prompt in enumerate(answers(folder)["prompts"]):
        shape, values = wanted[f"logits.{i}"]
        found = model.logits(prompt["ids"])
        assert list(found.shape) == shape
        errors[len(prompt["ids"])] = relative_l2(found.tolist(), values)
    return errors


def prompts_of_all_lengths(folder: Path) -> list[list[int]]:
    """The prompts, and parts of the longest that end before, at and after the end of a cache block."""
    longest = longest_prompt(folder)
    stored = [prompt["ids"] for prompt in answers(folder)["prompts"]]
    return stored + [longest[:n] for n in (1, 3, 31, 32, 33)] + [longest[1:]]
