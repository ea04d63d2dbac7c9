"""The golden checkpoints that see: what each is for stands in README.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vision_oracle import Request

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
    video_budget: tuple[int, int] = (0, 0)
    dtype: str = "float32"
    tied: bool = True
    published: bool = False  # config.json as in the published files, else as transformers 5 writes it
    shard_size: str | None = None
    layers: bool = False  # store what every layer makes of the first request that asks for the tower
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


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
]
