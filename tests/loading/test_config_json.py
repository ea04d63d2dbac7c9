from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pio.errors import CheckpointError, UnsupportedModelError
from pio.loading.config_json import dtype, rope_parameters

PUBLISHED = Path(__file__).parents[2] / ".." / "shared" / "checkpoints"
YARN = {"factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"rope_theta": 1000000, "rope_scaling": None}, {"rope_type": "default", "rope_theta": 1e6}),
        ({"rope_theta": 5e6}, {"rope_type": "default", "rope_theta": 5e6}),
        ({}, {"rope_type": "default", "rope_theta": 1e4}),
        (
            {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
            {"rope_type": "default", "rope_theta": 1e4},
        ),
        (
            {"rope_parameters": {"rope_type": "default"}, "rope_theta": 7},
            {"rope_type": "default", "rope_theta": 7.0},
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 3}, "rope_theta": 7},
            {"rope_type": "default", "rope_theta": 3.0},
        ),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", **YARN}},
            {"rope_type": "yarn", "rope_theta": 1e6, **YARN},
        ),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "su", "rope_type": "yarn", **YARN}},
            {"rope_type": "yarn", "rope_theta": 1e6, **YARN},
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, **YARN, "truncate": False, "mscale": None}},
            {"rope_type": "yarn", "rope_theta": 1e6, **YARN, "truncate": False},
        ),
        (
            {
                "rope_scaling": {"rope_type": "yarn", "factor": None, "beta_fast": 16, "beta_slow": 2, "mscale": 1},
                "max_position_embeddings": 8192,
                "original_max_position_embeddings": 2048,
            },
            {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 2048,
                "beta_fast": 16.0,
                "beta_slow": 2.0,
                "mscale": 1.0,
            },
        ),
        (
            {
                "rope_scaling": {"rope_type": "yarn", "factor": 2, "attention_factor": 1.25},
                "max_position_embeddings": 96,
            },
            {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 2.0,
                "attention_factor": 1.25,
                "original_max_position_embeddings": 96,
            },
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}, "max_position_embeddings": 96},
            {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
        ),
        (
            {"rope_theta": 5e6, "rope_scaling": None, "partial_rotary_factor": 0.25},
            {"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.25},
        ),
        (
            {"rope_scaling": {"mrope_section": [24, 20, 20], "rope_type": "default"}, "rope_theta": 5000000},
            {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 5.0, "rope_type": "default"}}},
            {"rope_type": "default", "rope_theta": 5.0},
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 5}, "sliding_attention": {"rope_theta": 5}}},
            {"rope_type": "default", "rope_theta": 5.0},
        ),
        (
            {
                "rope_parameters": {"full_attention": {"rope_theta": 5}, "sliding_attention": {"rope_theta": 6}},
                "layer_types": ["sliding_attention", "sliding_attention"],
            },
            {"rope_type": "default", "rope_theta": 6.0},
        ),
    ],
)
def test_both_styles_give_one_form(raw: dict[str, Any], expected: dict[str, Any]) -> None:
    before = json.dumps(raw)
    assert rope_parameters(raw) == expected
    assert json.dumps(raw) == before


def test_the_default_base_is_the_models_own() -> None:
    assert rope_parameters({}, default_theta=5e5)["rope_theta"] == 5e5
    assert rope_parameters({"rope_theta": 2}, default_theta=5e5)["rope_theta"] == 2.0


def test_layers_that_differ_are_not_supported() -> None:
    raw = {"rope_parameters": {"full_attention": {"rope_theta": 5}, "sliding_attention": {"rope_theta": 6}}}
    with pytest.raises(UnsupportedModelError, match="'full_attention', 'sliding_attention'"):
        rope_parameters(raw)
    with pytest.raises(UnsupportedModelError):
        rope_parameters({**raw, "layer_types": ["full_attention", "sliding_attention"]})


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"rope_theta": "10000"}, "rope_theta"),
        ({"rope_theta": True}, "rope_theta"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_theta": [1]}, "rope_theta"),
        ({"rope_scaling": "yarn"}, "rope_scaling"),
        ({"rope_parameters": [1]}, "rope_parameters"),
        ({"rope_scaling": {"rope_type": 3}}, "rope_type"),
        ({"rope_scaling": {"rope_type": ""}}, "rope_type"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "original_max_position_embeddings"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 0, **{"x": 1}}, "max_position_embeddings": 8}, "factor"),
        ({"rope_scaling": {"rope_type": "yarn"}, "max_position_embeddings": "8"}, "max_position_embeddings"),
        (
            {"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 2.5}},
            "original_max_position_embeddings",
        ),
        ({"rope_scaling": {"rope_type": "yarn", **YARN, "beta_fast": "32"}}, "beta_fast"),
        ({"rope_scaling": {"rope_type": "yarn", **YARN, "beta_fast": -1}}, "beta_fast"),
        ({"rope_scaling": {"rope_type": "yarn", **YARN, "mscale_all_dim": -10}}, "mscale_all_dim"),
        ({"rope_scaling": {"rope_type": "llama3", **YARN, "low_freq_factor": float("nan")}}, "low_freq_factor"),
        ({"rope_theta": 5e-324}, "rope_theta"),
        ({"rope_scaling": {"rope_type": "yarn", **YARN, "truncate": 1}}, "truncate"),
        ({"partial_rotary_factor": -0.5}, "partial_rotary_factor"),
    ],
)
def test_a_bad_field_is_named(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: {field} is .*, expected .*; correct the field") as caught:
        rope_parameters(raw)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16"}, "float16"),
        ({"dtype": "float32", "torch_dtype": "bfloat16"}, "float32"),
        ({"dtype": None, "torch_dtype": "torch.float16"}, "float16"),
        ({}, None),
    ],
)
def test_dtype_of_both_styles(raw: dict[str, Any], expected: str | None) -> None:
    assert dtype(raw) == expected


def test_dtype_that_is_no_name() -> None:
    with pytest.raises(CheckpointError, match="torch_dtype is 16"):
        dtype({"torch_dtype": 16})


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published configs are not on this machine")
@pytest.mark.parametrize(
    ("folder", "theta", "partial"),
    [
        ("qwen3-0.6b", 1e6, None),
        ("qwen3-4b-instruct-2507", 5e6, None),
        ("qwen3-coder-30b-a3b-instruct", 1e7, None),
        ("qwen3-coder-next", 5e6, 0.25),
        ("glm-4.7-flash", 1e6, 1.0),
        ("qwen3-vl-2b-instruct", 5e6, None),
    ],
)
def test_published_configs(folder: str, theta: float, partial: float | None) -> None:
    raw = json.loads((PUBLISHED / folder / "config.json").read_text())
    raw = raw.get("text_config", raw)
    found = rope_parameters(raw)
    assert (found["rope_type"], found["rope_theta"], found.get("partial_rotary_factor")) == ("default", theta, partial)
    assert dtype(raw) == "bfloat16"
