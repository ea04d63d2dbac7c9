"""Pictures that are shown to models that see."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

PICTURE, ENCODE = "picture", "encode"
QUESTION = "What is in this picture?"
TEXT_TOKENS = 128  # more than the question has, with the chat template around it


def size_of(text: str) -> tuple[int, int]:
    """Return width and height of a picture as options name it.

    Raises:
        ValueError: It is no size.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise ValueError(f"{text!r}: expected width and height of a picture, like 1024x768")
    return int(found[1]), int(found[2])


def context_of(sizes: tuple[str, ...], config: dict[str, Any]) -> int:
    """Return how many tokens a prompt with the largest of these pictures has at most."""
    vision = config["vision_config"]
    side = vision["patch_size"] * vision["spatial_merge_size"]
    return TEXT_TOKENS + max((-(-w // side) + 1) * (-(-h // side) + 1) for w, h in map(size_of, sizes))


def write_picture(path: Path, size: str, seed: str) -> Path:
    """Write a picture of noise, another one for each seed, so that no cache of pictures helps."""
    from PIL import Image

    width, height = size_of(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height)).save(path)
    return path
