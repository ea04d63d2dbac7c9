"""Conversations with pictures and videos become the tokens that the published processor makes of them."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vision_case import FOLDER

import pio
from pio.testing.random_checkpoint import write_random_checkpoint

pytest.importorskip("PIL")
pytest.importorskip("pio.media")

from PIL import Image

CHECKPOINTS = Path(os.environ.get("PIO_TEST_CHECKPOINTS") or FOLDER.parents[2] / "../shared/checkpoints")
PUBLISHED = CHECKPOINTS / "qwen3-vl-2b-instruct"
TOLD: list[dict[str, Any]] = json.loads((FOLDER / "processor.json").read_text("utf-8"))["conversations"]
DEFAULT_FPS = 24  # of transformers, where a video says none
START, END, IMAGE, VIDEO = 151652, 151653, 151655, 151656


def unpacked(runs: list[int | list[int]]) -> list[int]:
    ids: list[int] = []
    for run in runs:
        ids += [run[0]] * run[1] if isinstance(run, list) else [run]
    return ids


def messages(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages with black pictures and videos in them, as far as there are some."""
    filled = copy.deepcopy(told["messages"])
    pictures, videos = iter(told.get("pictures", ())), iter(told.get("videos", ()))
    for part in (part for message in filled if isinstance(message["content"], list) for part in message["content"]):
        if part["type"] == "image" and (size := next(pictures, None)):
            part["image"] = Image.new("RGB", size)
        elif part["type"] == "video":
            frames, fps, width, height = next(videos)
            part |= {"video": [Image.new("RGB", (width, height))] * frames, "fps": fps or DEFAULT_FPS}
    return filled


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a tiny random model with the published tokenizer, template and preprocessors."""
    if not (PUBLISHED / "tokenizer.json").is_file():
        pytest.skip(f"shared/checkpoints not present: {PUBLISHED.name}")
    config = json.loads((PUBLISHED / "config.json").read_text("utf-8"))
    config["text_config"] |= {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    config["text_config"] |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    config["vision_config"] |= {"hidden_size": 16, "intermediate_size": 16, "depth": 2, "num_heads": 1}
    config["vision_config"] |= {"out_hidden_size": 16, "deepstack_visual_indexes": [0]}
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_random_checkpoint(folder, config, tokenizer=False)
    for file in PUBLISHED.iterdir():
        if file.name not in ("config.json", "generation_config.json"):
            shutil.copyfile(file, folder / file.name)
    with pio.load(folder) as model:
        yield model.loaded.prompts


@pytest.mark.parametrize("told", [t for t in TOLD if "ids" in t and "sanitized_ids" not in t], ids=lambda t: t["name"])
def test_ids_and_places(prompts: Any, told: dict[str, Any]) -> None:
    found = prompts.encode(messages(told), **told.get("options", {}))
    assert list(found.token_ids) == unpacked(told["ids"])
    if "pictures" in told or "videos" in told:
        assert found.positions.shift == told["rope_delta"]


@pytest.mark.parametrize("told", [t for t in TOLD if "sanitized_ids" in t], ids=lambda t: t["name"])
def test_marks_in_a_users_text_are_text(prompts: Any, told: dict[str, Any]) -> None:
    """transformers cuts such a text at the marks, so its other tokens may differ."""
    found, wanted = list(prompts.encode(messages(told)).token_ids), unpacked(told["sanitized_ids"])
    for mark in (START, END, IMAGE, VIDEO):
        assert found.count(mark) == wanted.count(mark)


def test_a_mark_without_a_picture(prompts: Any) -> None:
    told = next(t for t in TOLD if t["name"] == "fewer pictures than marks")
    with pytest.raises(pio.ConfigError):
        prompts.encode(messages(told))
