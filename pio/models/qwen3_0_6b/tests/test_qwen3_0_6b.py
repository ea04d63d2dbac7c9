"""Qwen3-0.6B: its config, its plugin and what tells it from others of its architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pio.models.qwen3_0_6b.config import Qwen3Config
from pio.plugin import registry
from pio.plugin.manifest import PluginManifest
from pio.testing.plugin_case import PluginCase

REAL = Path(__file__).parents[4] / ".." / "shared" / "checkpoints" / "qwen3-0.6b" / "config.json"
PUBLISHED: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}


class TestQwen3_0_6B(PluginCase):
    """Everything a plugin must do, on a tiny model."""

    plugin = "qwen3_0_6b"
    config = {
        "model_type": "qwen3",
        "vocab_size": 4099,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 160,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        "eos_token_id": [2, 0],
    }


def manifest() -> PluginManifest:
    return registry.manifests()["qwen3_0_6b"]


def test_config_round_trip() -> None:
    config = Qwen3Config.from_checkpoint(PUBLISHED)
    again = Qwen3Config.model_validate_json(config.model_dump_json())
    assert again == config
    kept = {name: value for name, value in PUBLISHED.items() if name in Qwen3Config.model_fields}
    dumped = config.model_dump()
    assert {name: dumped[name] for name in kept} == kept and len(kept) >= 12
    assert config.rope["rope_theta"] == PUBLISHED["rope_theta"]
    assert config.stored_dtype == "bfloat16" and config.eos_token_ids == (151645,)
    assert config.layer_types == ("full_attention",) * PUBLISHED["num_hidden_layers"]


def test_new_style_config_is_the_same() -> None:
    new = {k: v for k, v in PUBLISHED.items() if k not in ("rope_theta", "rope_scaling", "torch_dtype")}
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": PUBLISHED["rope_theta"]}
    new["dtype"] = "bfloat16"
    assert Qwen3Config.from_checkpoint(new) == Qwen3Config.from_checkpoint(PUBLISHED)


@pytest.mark.skipif(not REAL.exists(), reason="needs the published config.json of Qwen/Qwen3-0.6B")
def test_the_published_config_is_the_one_tested() -> None:
    published = json.loads(REAL.read_text("utf-8"))
    assert {name: published[name] for name in PUBLISHED} == PUBLISHED
    assert Qwen3Config.from_checkpoint(published) == Qwen3Config.from_checkpoint(PUBLISHED)


def test_the_manifest_describes_the_published_model() -> None:
    found = manifest()
    config = Qwen3Config.from_checkpoint(PUBLISHED)
    assert found.lists(PUBLISHED) and found.checkpoints == ("Qwen/Qwen3-0.6B",)
    assert found.parameters == config.parameters == 596_049_920
    assert found.memory_bytes > 2 * found.parameters


def test_what_is_released_is_what_was_published_and_all_that_the_architecture_leaves_open() -> None:
    released = Qwen3Config.released
    assert released.items() <= PUBLISHED.items() and manifest().dimensions.items() <= released.items()
    alone, published = (Qwen3Config.from_checkpoint(raw) for raw in ({"model_type": "qwen3", **released}, PUBLISHED))
    assert alone == published.model_copy(update={"stored_dtype": None, "eos_token_ids": ()})


def test_the_readme_has_the_numbers_of_the_released_model() -> None:
    found, text = Qwen3Config.released, (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    for row in (
        f"{found['num_hidden_layers']}, {found['hidden_size']}, {found['intermediate_size']} |",
        f"{found['num_attention_heads']}, {found['num_key_value_heads']}, {PUBLISHED['head_dim']} |",
        f"base {found['rope_theta']:,}; context {found['max_position_embeddings']:,}",
        f"| parameters | {manifest().parameters:,} ",
    ):
        assert row in text


def test_the_registry_chooses_this_plugin() -> None:
    assert registry.choose(PUBLISHED) == (manifest(), True)
    smaller = {**PUBLISHED, "num_hidden_layers": PUBLISHED["num_hidden_layers"] - 1}
    assert registry.choose(smaller) == (manifest(), False)
