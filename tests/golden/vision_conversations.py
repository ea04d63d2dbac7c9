"""Conversations with pictures and videos, and what the real processor makes of them and of videos of many lengths."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cpu_torchvision  # noqa: F401 - before transformers
import numpy as np
import torch
from PIL import Image
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize
from transformers.video_utils import VideoMetadata

IMAGE, VIDEO = {"type": "image"}, {"type": "video"}
SHOWN = 6  # indices and time stamps of a long video that are stored, at each of its ends
VIDEOS = (  # frames, frames a second, width, height
    *((1, 24, 320, 240), (2, 24, 320, 240), (3, 24, 320, 240), (4, 24, 320, 240), (5, 2, 320, 240), (7, 3, 64, 48)),
    *((8, 4, 50, 34), (9, 1, 33, 31), (10, 2.5, 100, 20), (24, 24, 640, 480), (25, 25, 640, 480), (48, 24, 1280, 720)),
    *((50, 30, 640, 360), (60, 29.97, 640, 360), (100, 25, 1920, 1080), (119, 23.976, 854, 480), (120, 0.5, 64, 64)),
    *((240, 60, 1280, 720), (300, 30, 1280, 720), (901, 30, 640, 480), (1000, 10, 320, 240), (2000, 25, 1920, 1080)),
    *((9216, 24, 640, 360), (9300, 24, 640, 360), (20000, 25, 1280, 720), (100000, 30, 426, 240), (6, None, 64, 64)),
    *((40, None, 320, 240), (30, 10, 20, 4000), (30, 10, 20, 4001), (30, 10, 8, 8)),
)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def conversations() -> dict[str, dict[str, Any]]:
    """By name: `messages`, `pictures` (width, height), `videos` (frames, rate, width, height), `options`."""
    call = {"type": "function", "function": {"name": "screenshot", "arguments": {"window": 2}}}
    shot = {"role": "tool", "content": [text("Here it is:"), IMAGE]}
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    terse = {"role": "system", "content": "Be terse."}
    told = {"role": "assistant", "content": "A cat."}
    literal = "What do <|image_pad|> and <|vision_start|> mean?"
    return {
        "one": {"messages": [user(IMAGE, text("Describe."))], "pictures": [(256, 256)]},
        "one, after the text": {"messages": [user(text("What is this?"), IMAGE)], "pictures": [(33, 31)]},
        "system": {"messages": [terse, user(IMAGE, text("And?"))], "pictures": [(640, 480)]},
        "two": {"messages": [user(IMAGE, IMAGE, text("Compare them."))], "pictures": [(300, 200), (1, 1)]},
        "two turns": {
            "messages": [user(IMAGE, text("What?")), told, user(text("And here: "), IMAGE, text(" which?"))],
            "pictures": [(1024, 484), (75, 1400)],
        },
        "five": {
            "messages": [user(text("a"), IMAGE, IMAGE, text("b"), IMAGE, text("c"), IMAGE, IMAGE)],
            "pictures": [(64, 64), (500, 20), (20, 500), (448, 448), (257, 255)],
        },
        "numbered": {
            "messages": [user(IMAGE, IMAGE, VIDEO, text("Which?"))],
            "pictures": [(256, 300), (300, 256)],
            "videos": [(8, 4, 64, 64)],
            "options": {"add_vision_id": True},
        },
        "tool": {"messages": [user(text("Look at it.")), asked, shot], "pictures": [(320, 200)]},
        "video": {"messages": [user(VIDEO, text("What happens?"))], "videos": [(10, 2, 320, 240)]},
        "video, odd count": {"messages": [user(VIDEO, text("?"))], "videos": [(5, 2, 100, 60)]},
        "video without a rate": {"messages": [user(VIDEO, text("?"))], "videos": [(48, None, 64, 64)]},
        "two videos and a picture": {
            "messages": [user(VIDEO, text("then"), IMAGE, text("then"), VIDEO)],
            "pictures": [(128, 64)],
            "videos": [(4, 24, 64, 64), (90, 30, 128, 96)],
        },
        "no picture": {"messages": [terse, user(text("Hello."))]},
        "literal marks": {"messages": [user(text(literal))]},
        "literal start": {"messages": [user(text("A <|vision_start|> and <|vision_end|>."))]},
        "literal marks before a picture": {"messages": [user(text(literal), IMAGE)], "pictures": [(256, 256)]},
        "more pictures than marks": {"messages": [user(IMAGE)], "pictures": [(256, 256), (256, 256)]},
        "fewer pictures than marks": {"messages": [user(IMAGE, IMAGE)], "pictures": [(256, 256)]},
    }


def runs(ids: Sequence[int]) -> list[int | list[int]]:
    """Four or more equal ids in a row as [id, count]."""
    packed: list[int | list[int]] = []
    for token, group in itertools.groupby(ids):
        count = len(list(group))
        packed += [[token, count]] if count > 3 else [token] * count
    return packed


def rope_delta(ids: list[int], made: dict[str, Any], processor: Any) -> int:
    """By the model's own rule, which needs no weights."""
    vision = SimpleNamespace(spatial_merge_size=processor.image_processor.merge_size)
    rule = SimpleNamespace(
        config=SimpleNamespace(vision_config=vision),
        get_vision_position_ids=lambda *a, **k: Qwen3VLModel.get_vision_position_ids(None, *a, **k),
    )
    of = {processor.image_token_id: 1, processor.video_token_id: 2}
    grids = {key: made[key] for key in ("image_grid_thw", "video_grid_thw") if key in made}
    kinds = torch.tensor([[of.get(token, 0) for token in ids]])
    _, delta = Qwen3VLModel.get_rope_index(rule, torch.tensor([ids]), mm_token_type_ids=kinds, **grids)
    return int(delta)


def media(case: dict[str, Any]) -> dict[str, Any]:
    """Black pictures and videos of the sizes of a conversation."""
    pictures = [Image.new("RGB", size) for size in case.get("pictures", ())]
    videos = [np.zeros((n, h, w, 3), np.uint8) for n, _, w, h in case.get("videos", ())]
    about = [{"total_num_frames": n, "fps": fps} for n, fps, _, _ in case.get("videos", ())]
    return {"images": pictures or None, "videos": videos or None} | ({"video_metadata": about} if about else {})


def conversation_facts(processor: Any, name: str, case: dict[str, Any]) -> dict[str, Any]:
    """The ids with their runs packed and the rope delta, or what the processor says of what it refuses."""
    told = {"name": name, **case}
    messages = copy.deepcopy(case["messages"])
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True, **case.get("options", {}))
    try:
        made = processor(text=[rendered], return_tensors="pt", return_metadata=True, **media(case))
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {error}"
    else:
        ids = made["input_ids"][0].tolist()
        told |= {"ids": runs(ids), "count": len(ids)}
        told |= {key: made[key].tolist() for key in ("image_grid_thw", "video_grid_thw") if key in made}
        try:
            told["rope_delta"] = rope_delta(ids, made, processor)
        except Exception as error:
            told["positions_error"] = f"{type(error).__name__}: {error}"
    return told | (sanitized(processor, case) if name.startswith("literal") else {})


def sanitized(processor: Any, case: dict[str, Any]) -> dict[str, Any]:
    """The ids where marks in a user's text are text."""
    messages, pictures = copy.deepcopy(case["messages"]), list(media(case)["images"] or ())
    for part in messages[0]["content"]:
        if part["type"] == "image":
            part["image"] = pictures.pop(0)
    made = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, sanitize_control_tokens=True
    )
    return {"sanitized_ids": runs(made["input_ids"][0])}


def ends(values: Sequence[Any]) -> list[Any]:
    """All of a short list, and both ends of a long one."""
    return list(values) if len(values) <= 2 * SHOWN else [*values[:SHOWN], *values[-SHOWN:]]


def video_facts(processor: Any, frames: int, fps: float | None, width: int, height: int) -> dict[str, Any]:
    """Which frames of a video are taken, its grid, and the texts before its time steps; or what is refused."""
    video = processor.video_processor
    about = VideoMetadata(total_num_frames=frames, fps=fps)
    indices = [int(i) for i in video.sample_frames(metadata=about)]
    told = {"frames": frames, "fps": fps, "size": [width, height], "count": len(indices), "sum": sum(indices)}
    times = processor._calculate_timestamps(list(indices), about.fps, video.temporal_patch_size)
    told |= {"indices": ends(indices), "timestamps": ends([f"<{time:.1f} seconds>" for time in times])}
    try:
        rows, columns = smart_resize(
            len(indices), height, width, video.temporal_patch_size, video.patch_size * video.merge_size,
            video.size["shortest_edge"], video.size["longest_edge"],
        )  # fmt: skip
    except ValueError as error:
        return told | {"error": str(error)}
    return told | {"grid": [len(times), rows // video.patch_size, columns // video.patch_size]}
