"""What pictures take of memory is known before, and nothing of it stays."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
import vision_case as golden
from PIL import Image

import pio
from pio.memory.allocation import allocated_bytes
from pio.models.qwen3_vl_2b_instruct import vision_tower

CASE = "three_levels"
MARK = 151  # config.json's image_token_id
TURNS, SETTLED = 50, 10


def picture(seed: int, side: int) -> Image.Image:
    """No two are alike."""
    return Image.linear_gradient("L").resize((side, side)).rotate(seed, fillcolor=seed).convert("RGB")


def prompt(*pictures: Image.Image) -> dict[str, Any]:
    return {"text": [5, *[MARK] * len(pictures), 6, 7], "images": list(pictures)}


@pytest.mark.parametrize("sides", [(64,), (256, 288), (320, 96, 224, 160, 288)], ids=len)
def test_what_the_pictures_of_a_prompt_take_is_known_before(
    monkeypatch: pytest.MonkeyPatch, sides: tuple[int, ...]
) -> None:
    monkeypatch.setattr(vision_tower, "PIECE", 0.0)  # give way after every operation
    with pio.load(golden.FOLDER / CASE) as model:
        encoder = model.loaded.model.encoder
        given = prompt(*(picture(i, side) for i, side in enumerate(sides)))
        media = [placed.medium for placed in model.loaded.prompts.encode(given).media]
        stated = encoder.working_bytes(media) + sum(encoder.embeddings_bytes(medium) for medium in media)
        gc.collect()
        before, peak = allocated_bytes(), 0
        for _ in encoder.encode(media):
            peak = max(peak, allocated_bytes() - before)
    assert abs(peak - stated) <= 0.1 * stated


def test_memory_is_the_same_after_fifty_pictures() -> None:
    """The engine's buffers to the byte, and what Python keeps to a few names."""
    with pio.load(golden.FOLDER / CASE, media_cache=40_000) as model:
        buffers, objects = [], []
        tracemalloc.start()
        for turn in range(TURNS):
            answer = model.generate(prompt(picture(turn, 128)), max_new_tokens=3, ignore_eos=True)
            assert answer.usage.image_tokens > 0
            del answer
            gc.collect()
            buffers.append(allocated_bytes())
            objects.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert model.stats().encoded_media == TURNS
    assert len(set(buffers[SETTLED:])) == 1
    assert objects[-1] - objects[SETTLED] < 100_000
