"""How fast a model looks at pictures: the tower alone, the prompt behind it, and the first token of an answer."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median
from typing import Any, Final, NamedTuple, cast

from pio.benchmarks.machine import Machine, around, ratio
from pio.benchmarks.report import Series, Sight
from pio.benchmarks.subject import arithmetic_of, token_ids
from pio.errors import ConfigError
from pio.plugin import TextModelPlugin
from pio.plugin.media_parts import MediaSource
from pio.system import HERE
from pio.tensor import Tensor

WORDS: Final = 16  # tokens of text before a picture, and as many behind it


def most_tokens(raw: Mapping[str, Any], size: tuple[int, int]) -> int:
    """Return the most tokens that a prompt with a picture may have, by a config.json."""
    found: Any = raw.get("vision_config")
    vision = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    patch, merge = vision.get("patch_size"), vision.get("spatial_merge_size")
    side = (patch if isinstance(patch, int) and patch > 0 else 16) * (merge if isinstance(merge, int) else 2)
    width, height = size
    area = max((width / side + 1) * (height / side + 1), (256 / side + 1) ** 2)  # small ones are made larger
    return 2 * WORDS + ceil(area)


class _Look(NamedTuple):
    """One look at a picture, in seconds, and tokens a second: ``Sight`` has their medians."""

    prepare: float
    encode: float
    prefill: float
    first_token: float
    decode: float


class Looks:
    """Looks at pictures of some sizes, round by round, each time at others, so that none is known.

    Attributes:
        arithmetic: What most products of the tower are of; None without pictures.
    """

    def __init__(self, model: TextModelPlugin, sizes: Sequence[tuple[int, int]], new_tokens: int) -> None:
        """Look at one picture of each size, which touches all memory that this takes.

        Args:
            model: A loaded model; nothing else runs on it.
            sizes: Width and height of pictures.
            new_tokens: Tokens of the answers behind them.

        Raises:
            ConfigError: The model sees no pictures.
            CapacityError: The context has no room for a picture.
        """
        if sizes and (model.loaded.model.encoder is None or model.loaded.prompts.media is None):
            raise ConfigError(f"{model.manifest.name} reads text alone; measure pictures with a model that sees")
        self._model, self._sizes, self._new_tokens, self._seed = model, sizes, new_tokens, 0
        self._peaks: list[int | None] = []
        for size in sizes:
            self._look(size)
            self._peaks.append(HERE.peak_memory())
        self.arithmetic = arithmetic_of(model, "tower") if sizes else None
        self._machine: Machine | None = None
        self._rounds: list[list[tuple[_Look, float]]] = [[] for _ in sizes]

    def round(self) -> None:
        """Look at a picture of each size, and measure the machine beside it."""
        if self.arithmetic is None:
            return
        if self._machine is None:  # not before memory was measured
            self._machine = Machine(self._model.loaded.model.device, 4, arithmetic=self.arithmetic)
        for size, rounds in zip(self._sizes, self._rounds, strict=True):
            rounds.append(around(self._machine.operations, lambda size=size: self._look(size)))

    def summed_up(self) -> list[Sight]:
        """Return what was found of each size."""
        found = zip(self._sizes, self._rounds, self._peaks, strict=True)
        return [self._summed_up(size, rounds, peak) for size, rounds, peak in found]

    def _look(self, size: tuple[int, int]) -> _Look:
        picture = self._picture(size)
        began = time.perf_counter()
        prompt = self._prompt(self._prepared(picture))
        prepared = time.perf_counter() - began
        fields: dict[str, Any] = {"max_new_tokens": self._new_tokens, "temperature": 0.0, "ignore_eos": True}
        timings = self._model.generate(prompt, **fields).timings  # nothing else runs: a request waits for the tower
        first = prepared + timings.time_to_first_token
        return _Look(prepared, timings.queue, timings.prefill, first, timings.tokens_per_second)

    def _picture(self, size: tuple[int, int]) -> Tensor:
        width, height = size
        self._seed += 1
        pixels = bytearray(random.Random(self._seed).randbytes(width * height * 3))
        return Tensor.from_buffer(pixels, "uint8").reshape(height, width, 3)

    def _prepared(self, picture: Tensor) -> Any:
        media = self._model.loaded.prompts.media
        assert media is not None
        return media.prepare(MediaSource("image", picture, "--image"))

    def _prompt(self, prepared: Any) -> Any:
        """A text with the picture in its middle."""
        media = self._model.loaded.prompts.media
        assert media is not None
        ids = token_ids(self._model, 2 * WORDS)
        source = MediaSource("image", prepared, "--image")
        return media.place([*ids[:WORDS], media.mark_ids[0], *ids[WORDS:]], [source], sys.maxsize)

    def _summed_up(self, size: tuple[int, int], rounds: list[tuple[_Look, float]], peak: int | None) -> Sight:
        encoder = self._model.loaded.model.encoder
        assert encoder is not None
        prepared = self._prepared(self._picture(size))
        work, machine = encoder.operations([prepared]), [speed for _, speed in rounds]
        prompt, frames = self._prompt(prepared), prepared.frames.shape
        return Sight(
            width=size[0],
            height=size[1],
            seen_width=frames[2],
            seen_height=frames[1],
            tokens=prepared.tokens,
            prompt_tokens=len(prompt.token_ids),
            prepare=median(look.prepare for look, _ in rounds),
            encode=median(look.encode for look, _ in rounds),
            prefill=median(look.prefill for look, _ in rounds),
            time_to_first_token=median(look.first_token for look, _ in rounds),
            decode=median(look.decode for look, _ in rounds),
            operations_per_picture=work,
            operations=Series.of(machine),
            operations_share=work * ratio([1 / look.encode for look, _ in rounds], machine),
            peak_memory=peak,
        )
