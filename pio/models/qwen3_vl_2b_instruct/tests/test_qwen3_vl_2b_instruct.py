"""Qwen3-VL-2B-Instruct: its config, its plugin, its tower and what tells it from others of its architecture."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pio.errors import CheckpointError, UnsupportedModelError
from pio.models.qwen3_vl_2b_instruct.config import Qwen3VLConfig
from pio.plugin import registry
from pio.plugin.manifest import PluginManifest
from pio.testing.media_case import MediaPluginCase

REPOSITORY = Path(__file__).parents[4]
REAL = REPOSITORY / ".." / "shared" / "checkpoints" / "qwen3-vl-2b-instruct"
TEXT: dict[str, Any] = {
    "attention_bias": False,
    "bos_token_id": 151643,
    "dtype": "bfloat16",
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 262144,
    "model_type": "qwen3_vl_text",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    "rope_theta": 5000000,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
VISION: dict[str, Any] = {
    "deepstack_visual_indexes": [5, 11, 17],
    "depth": 24,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1024,
    "in_channels": 3,
    "intermediate_size": 4096,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "out_hidden_size": 2048,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
PUBLISHED: dict[str, Any] = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 151655,
    "model_type": "qwen3_vl",
    "text_config": TEXT,
    "tie_word_embeddings": True,
    "video_token_id": 151656,
    "vision_config": VISION,
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}


class TestQwen3VL2B(MediaPluginCase):
    """Everything a plugin must do whose models see, on a tiny model."""

    plugin = "qwen3_vl_2b_instruct"
    config = {
        "model_type": "qwen3_vl",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": True,
        "vision_start_token_id": 4096,
        "vision_end_token_id": 4097,
        "image_token_id": 4098,
        "video_token_id": 4099,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": 4103,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 320,
            "tie_word_embeddings": True,
            "rope_theta": 10000.0,
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
            "eos_token_id": [2, 0],
        },
        "vision_config": {
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 49,
            "out_hidden_size": 24,
            "deepstack_visual_indexes": [0, 2],
        },
    }


def changed(where: str, **fields: Any) -> dict[str, Any]:
    """Return the published config with other fields: at the top, or in one of its parts."""
    raw = copy.deepcopy(PUBLISHED)
    (raw[where] if where else raw).update(fields)
    return raw


def manifest() -> PluginManifest:
    return registry.manifests()["qwen3_vl_2b_instruct"]


def test_config_round_trip() -> None:
    config = Qwen3VLConfig.from_checkpoint(PUBLISHED)
    assert Qwen3VLConfig.model_validate_json(config.model_dump_json()) == config
    kept = {name: value for name, value in TEXT.items() if name in Qwen3VLConfig.model_fields and name != "model_type"}
    dumped = config.model_dump()
    assert {name: dumped[name] for name in kept} == kept and len(kept) >= 10
    vision = config.vision.model_dump()
    assert {name: vision[name] for name in VISION} == {**VISION, "deepstack_visual_indexes": (5, 11, 17)}
    assert config.stored_dtype == "bfloat16" and config.eos_token_ids == (151645,)
    assert config.marks == (151655, 151656, 151652, 151653)
    assert config.mrope_section == (24, 20, 20) and config.rope["rope_theta"] == 5_000_000


def test_new_style_config_is_the_same() -> None:
    text = {name: value for name, value in TEXT.items() if name not in ("rope_theta", "rope_scaling")}
    text["rope_parameters"] = {**TEXT["rope_scaling"], "rope_theta": TEXT["rope_theta"]}
    new = {**PUBLISHED, "text_config": text}
    assert Qwen3VLConfig.from_checkpoint(new) == Qwen3VLConfig.from_checkpoint(PUBLISHED)


def test_pairs_turn_by_time_height_and_width_in_turns() -> None:
    axes = Qwen3VLConfig.from_checkpoint(PUBLISHED).pair_axes
    assert axes == [0, 1, 2] * 20 + [0] * 4
    assert [axes.count(axis) for axis in range(3)] == [24, 20, 20]


@pytest.mark.skipif(not REAL.exists(), reason="needs the published files of Qwen/Qwen3-VL-2B-Instruct")
def test_the_published_config_is_the_one_tested() -> None:
    published = json.loads((REAL / "config.json").read_text("utf-8"))
    for part, ours in (("text_config", TEXT), ("vision_config", VISION)):
        assert {name: published[part][name] for name in ours} == ours
    assert Qwen3VLConfig.from_checkpoint(published) == Qwen3VLConfig.from_checkpoint(PUBLISHED)


def test_the_manifest_describes_the_published_model() -> None:
    found, config = manifest(), Qwen3VLConfig.from_checkpoint(PUBLISHED)
    assert found.lists(config.model_dump()) and found.checkpoints == ("Qwen/Qwen3-VL-2B-Instruct",)
    assert found.parameters == config.parameters == 2_127_532_032
    assert config.parameters - config.tower_parameters == 1_720_574_976
    assert found.memory_bytes > 2 * found.parameters
    assert found.modalities == ("text", "image", "video")


def test_the_registry_chooses_this_plugin() -> None:
    assert registry.choose(PUBLISHED) == (manifest(), True)
    assert registry.choose(changed("text_config", num_hidden_layers=27)) == (manifest(), False)


def test_the_readme_has_the_numbers_of_the_released_model() -> None:
    config = Qwen3VLConfig.from_checkpoint(PUBLISHED)
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    for row in (
        f"{config.num_hidden_layers}, {config.hidden_size}, {config.intermediate_size} |",
        f"{config.num_attention_heads}, {config.num_key_value_heads}, {config.head_dim} |",
        f"base {5_000_000:,}; context {config.max_position_embeddings:,}",
        f"| parameters | {config.parameters:,} ",
        f"{config.vision.depth}, {config.vision.hidden_size}, {config.vision.intermediate_size} |",
    ):
        assert row in text
    for side in (256, 512, 1024, 2048):
        patches = (side // 16) ** 2
        row = f"| {side} x {side} | {patches:,} | {patches // 4:,} | {config.vision.operations(patches) / 1e12:.2f} |"
        assert row in text, row


@pytest.mark.parametrize(
    ("raw", "error", "words"),
    [
        (changed("", text_config=None), CheckpointError, "text_config"),
        (changed("", vision_config=None), CheckpointError, "vision_config"),
        (changed("text_config", model_type="qwen3"), UnsupportedModelError, "text_config.model_type"),
        (changed("text_config", rope_scaling={"mrope_section": [1, 2, 3]}), CheckpointError, "mrope_section"),
        (
            changed("text_config", rope_scaling={"mrope_section": [24, 20, 20], "mrope_interleaved": False}),
            UnsupportedModelError,
            "mrope_interleaved",
        ),
        (changed("vision_config", out_hidden_size=2047), CheckpointError, "out_hidden_size"),
        (changed("vision_config", num_heads=7), CheckpointError, "num_heads"),
        (changed("vision_config", num_position_embeddings=2303), CheckpointError, "num_position_embeddings"),
        (changed("vision_config", deepstack_visual_indexes=[5, 24]), CheckpointError, "deepstack_visual_indexes"),
        (changed("vision_config", deepstack_visual_indexes=[11, 5]), CheckpointError, "deepstack_visual_indexes"),
        (changed("vision_config", hidden_act="relu"), UnsupportedModelError, "hidden_act"),
        (changed("vision_config", depth="24"), CheckpointError, "depth"),
        (changed("", image_token_id=151_936), CheckpointError, "image_token_id"),
    ],
)
def test_configs_that_contradict_themselves(raw: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Qwen3VLConfig.from_checkpoint(raw)
