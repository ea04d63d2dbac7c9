"""The golden checkpoints that see: what each is for stands in README.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vision_request import Clip, Request

TEXT: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 2048,
    "model_type": "qwen3_vl_text",
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "use_cache": True,
}
VISION: dict[str, Any] = {
    "hidden_act": "gelu_pytorch_tanh",
    "in_channels": 3,
    "initializer_range": 0.02,
    "model_type": "qwen3_vl",
    "num_position_embeddings": 16,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


@dataclass(frozen=True)
class VisionCase:
    """One checkpoint: its two configs, how it is stored, its pictures and the requests that it answers."""

    name: str
    text: dict[str, Any]
    vision: dict[str, Any]
    section: tuple[int, int, int]
    pictures: dict[str, tuple[int, int, int]]  # width, height, seed
    requests: tuple[Request, ...]
    budget: tuple[int, int]  # least and most pixels of a picture
    video_budget: tuple[int, int] | None = None  # of all frames together; there is a tokenizer too
    dtype: str = "float32"
    tied: bool = True
    published: bool = False  # config.json as in the published files, else as transformers 5 writes it
    shard_size: str | None = None
    layers: bool = False  # store what every layer makes of the first request that asks for the tower
    old_limits: bool = False  # min_pixels and max_pixels instead of size
    null_limits: bool = False  # both there and null, which means nothing


def text(vocab: int, hidden: int, intermediate: int, heads: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    sizes = {"vocab_size": vocab, "hidden_size": hidden, "intermediate_size": intermediate}
    return sizes | dict(zip(("num_attention_heads", "num_key_value_heads", "head_dim"), heads, strict=True)) | more


def vision(hidden: int, heads: int, intermediate: int, depth: int, deepstack: list[int], **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_heads": heads,
        "intermediate_size": intermediate,
        "depth": depth,
        "deepstack_visual_indexes": deepstack,
        **more,
    }


PICTURES = {
    "odd.png": (75, 53, 1),
    "tall.png": (9, 181, 2),
    "wide.png": (187, 40, 3),
    "small.png": (33, 31, 4),
    "photo.jpg": (90, 68, 5),
}
FRAMES = {f"frame{i}.png": (50, 34, i) for i in range(8)}  # of one size: a ramp that moves
LARGE = {f"large{i}.png": (64, 64, 20 + i) for i in range(3)}


def clip(count: int, fps: float, kind: str = "frame") -> Clip:
    return Clip(tuple(f"{kind}{i}.png" for i in range(count)), fps)


CASES = [
    VisionCase(
        "one_level",
        text(131, 32, 40, (2, 1, 16)),
        vision(16, 2, 24, 3, [1]),
        (4, 2, 2),
        PICTURES,
        (
            Request("no picture", (17,)),
            Request("one", (3, "odd.png", 6), tower=True),
            Request("two", (2, "wide.png", 5, "small.png", 3), tower=True),
            Request("tall", ("tall.png", 4)),
            Request("jpeg", (5, "photo.jpg")),
        ),
        (3 * 1024, 10 * 1024),
        published=True,
        layers=True,
    ),
    VisionCase(
        "three_levels",
        text(157, 33, 41, (3, 1, 12), num_hidden_layers=4, rms_norm_eps=1e-5, rope_theta=1000000),
        vision(24, 1, 32, 5, [0, 2, 3], patch_size=8, num_position_embeddings=36),
        (2, 2, 2),
        PICTURES,
        (
            Request("one", (4, "photo.jpg", 3), tower=True),
            Request("two, adjacent", (1, "odd.png", "wide.png", 2), tower=True),
            Request("five", (2, "small.png", 1, "tall.png", "odd.png", 3, "wide.png", 2, "small.png", 4)),
            Request("no picture", (40,)),
        ),
        (4 * 256, 24 * 256),
        tied=False,
    ),
    VisionCase(
        "patch14_merge3",
        text(139, 36, 44, (2, 2, 16), attention_bias=True),
        vision(16, 1, 24, 4, [2], patch_size=14, spatial_merge_size=3, num_position_embeddings=49),
        (3, 3, 2),
        PICTURES,
        (
            Request("two, start and end", ("odd.png", 6, "photo.jpg"), tower=True),
            Request("wide", (2, "wide.png", 3), tower=True),
            Request("tall", (1, "tall.png", 2)),
        ),
        (4 * 1764, 14 * 1764),
        published=True,
        tied=False,
    ),
    VisionCase(
        "video",
        text(275, 32, 40, (4, 2, 12), num_hidden_layers=4, rope_theta=1000000),
        vision(16, 1, 24, 4, [0, 1, 3], patch_size=8, num_position_embeddings=36),
        (3, 2, 1),
        PICTURES | FRAMES | LARGE,
        (
            Request("video", (5, clip(5, 2.0), 4), tower=True),
            Request("video and picture", (3, clip(8, 4.0), 3, "small.png", 5), tower=True),
            Request("picture and two videos", ("odd.png", 2, clip(4, 1.0), clip(3, 24.0, "large"), 3)),
            Request("no picture", (12,)),
        ),
        (4 * 256, 16 * 256),
        video_budget=(4 * 6 * 256, 4 * 8 * 256),
        tied=False,
        published=True,
    ),
    VisionCase(
        "video_bf16",
        text(275, 36, 40, (3, 1, 16)),
        vision(32, 2, 40, 6, [1, 4]),
        (4, 2, 2),
        PICTURES | FRAMES,
        (
            Request("video of many steps", (3, clip(8, 2.0), 4), tower=True),
            Request("two pictures and a video", (2, "photo.jpg", "tall.png", 2, clip(3, 30.0), 1), tower=True),
            Request("one", (20, "wide.png")),
        ),
        (4 * 1024, 10 * 1024),
        video_budget=(4096, 4 * 3 * 1024),
        dtype="bfloat16",
        shard_size="100KB",
    ),
    VisionCase(
        "head128_bf16",
        text(149, 48, 56, (2, 1, 128), rope_theta=5000000),
        vision(64, 1, 48, 2, [], patch_size=8),
        (24, 20, 20),
        PICTURES,
        (
            Request("two", (4, "photo.jpg", 4, "wide.png", 1), tower=True),
            Request("no picture, long", (90,)),
            Request("small", ("small.png", 7), tower=True),
        ),
        (4 * 256, 24 * 256),
        dtype="bfloat16",
        published=True,
        null_limits=True,
    ),
    VisionCase(
        "three_levels_f16",
        text(151, 40, 44, (6, 2, 16), num_hidden_layers=5, rms_norm_eps=1e-2),
        vision(32, 1, 40, 4, [0, 1, 2], num_position_embeddings=49),
        (4, 2, 2),
        PICTURES,
        (
            Request("five", (3, "wide.png", "small.png", 2, "photo.jpg", 1, "odd.png", 3, "tall.png", 2)),
            Request("one", (2, "odd.png", 3), tower=True),
            Request("tall and wide", ("tall.png", 2, "wide.png"), tower=True),
            Request("no picture", (25,)),
        ),
        (1024, 16 * 1024),
        dtype="float16",
        tied=False,
        old_limits=True,
    ),
]
