"""A whole tower on a GPU: what it makes of a picture beside the CPU's, alone and beside another one, and how fast."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any, Final

from pio.benchmarks.gpu.check import Check, Finding
from pio.benchmarks.gpu.model_checks import WITHIN
from pio.benchmarks.gpu.subject import relative_error, same_bits
from pio.benchmarks.random_model import cut, random_model
from pio.errors import ConfigError
from pio.plugin import TextModelPlugin
from pio.plugin.media_parts import MediaSource
from pio.tensor import Tensor

OPTIONS: Final[dict[str, Any]] = {"context_length": 64, "speculation": "off", "prefix_cache": False}


def sight(check: Check) -> Iterator[Finding]:
    """Look at a picture here and there; of the decoder behind the tower no more layers are made than it adds to."""
    raw, (height, width) = check.shapes.seeing, check.shapes.picture
    if check.over("tower"):
        return
    shape = cut(raw, 1 + len(raw["vision_config"]["deepstack_visual_indexes"]))
    with random_model(shape, device="cpu", **OPTIONS) as model:
        wanted = _seen(model, _prepared(model, height, width))
    with random_model(shape, device=str(check.device), **OPTIONS) as model:
        picture = _prepared(model, height, width)
        found = _seen(model, picture)
        worst = max(relative_error(a, b) for a, b in zip(found, wanted, strict=True))
        yield Finding.right("tower: embeddings of a picture against the CPU's", worst, WITHIN)
        beside = _seen(model, _prepared(model, width, height), picture)
        yield Finding.equal("tower: a picture alone and beside another", int(same_bits(found, beside)), 1)
        began = time.perf_counter()
        _seen(model, picture)
        yield Finding(f"tower: picture of {width} x {height}", 1e3 * (time.perf_counter() - began), "ms")


def _prepared(model: TextModelPlugin, height: int, width: int) -> Any:
    """Return a picture of noise as the tower takes it."""
    media = model.loaded.prompts.media
    if media is None:
        raise ConfigError("the config of a model that sees makes one that reads text alone; give it a vision_config")
    pixels = bytearray(random.Random(height).randbytes(height * width * 3))
    return media.prepare(MediaSource("image", Tensor.from_buffer(pixels, "uint8").reshape(height, width, 3), "picture"))


def _seen(model: TextModelPlugin, *media: Any) -> list[Tensor]:
    """Return what a tower makes of the last of some pictures, on the CPU: its rows, and those for the first layers."""
    encoder = model.loaded.model.encoder
    assert encoder is not None
    work = encoder.encode(media)
    while True:
        try:
            next(work)
        except StopIteration as done:
            rows, additions = done.value[-1]
            return [each.to("cpu") for each in (rows, *additions)]
