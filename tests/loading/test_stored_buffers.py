"""What programs store beside weights is skipped by name, for every architecture; anything else left over is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pio
from pio.errors import CheckpointError
from pio.loading.checkpoint import Checkpoint
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.loading.stored_buffers import buffer
from pio.plugin import registry
from pio.tensor import Tensor
from pio.testing.random_checkpoint import write_random_checkpoint

COMMON: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "mlp_only_layers": [0]}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3_0_6b": {"model_type": "qwen3", **COMMON, "head_dim": 10},
    "qwen3_4b_instruct_2507": {"model_type": "qwen3", **COMMON, "head_dim": 10},
    "qwen3_coder_30b_a3b_instruct": {"model_type": "qwen3_moe", **COMMON, "head_dim": 10, **EXPERTS},
    "qwen3_coder_next": {
        "model_type": "qwen3_next",
        **COMMON,
        "head_dim": 16,
        **EXPERTS,
        "shared_expert_intermediate_size": 12,
        "full_attention_interval": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
    "glm_4_7_flash": {
        "model_type": "glm4_moe_lite",
        **COMMON,
        "num_key_value_heads": 4,
        "q_lora_rank": 14,
        "kv_lora_rank": 18,
        "qk_nope_head_dim": 6,
        "qk_rope_head_dim": 10,
        "v_head_dim": 12,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
    "qwen3_vl_2b_instruct": {
        "model_type": "qwen3_vl",
        "text_config": {**COMMON, "head_dim": 12, "rope_scaling": {"mrope_section": [2, 2, 2]}},
        "vision_config": {
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 24,
            "num_position_embeddings": 9,
            "deepstack_visual_indexes": [0],
        },
        "image_token_id": 60,
        "video_token_id": 59,
        "vision_start_token_id": 58,
        "vision_end_token_id": 57,
    },
}
SHAPES = {
    "rotary_emb.inv_freq": (5,),
    "model.rotary_emb.inv_freq": (5,),
    "model.layers.0.self_attn.rotary_emb.inv_freq": (5,),
    "model.layers.1.self_attn.rotary_emb.cos_cached": (1, 1, 64, 10),
    "model.layers.1.self_attn.rotary_emb.sin_cached": (1, 1, 64, 10),
    "model.layers.0.attn.bias": (1, 1, 64, 64),
    "model.layers.0.attn.masked_bias": (),
    "model.layers.0.self_attn.bias": (1, 1, 64, 64),
    "model.embeddings.position_ids": (1, 64),
    "position_ids": (64,),
    "model.norm.num_batches_tracked": (),
    "model.layers.0.self_attn.k_scale": (1,),
    "model.layers.0.self_attn.k_proj.k_scale": (),
    "model.layers.1.self_attn.v_proj.v_scale": (2,),
    "model.layers.1.self_attn.kv_scale": (),
}


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, whose file is mapped no more."""
    file = SafetensorsFile(folder / "model.safetensors")
    return {name: file.tensor(name).clone() for name in file.names}


def tensor(shape: tuple[int, ...]) -> Tensor:
    return Tensor.full(shape, 0.5)


def test_every_plugin_is_here() -> None:
    assert CONFIGS.keys() == registry.manifests().keys()


@pytest.mark.parametrize("plugin", CONFIGS)
def test_stored_buffers_change_nothing_in_any_architecture(plugin: str, tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "m", CONFIGS[plugin], plugin=plugin, tokenizer=False)
    tensors = read_tensors(folder)

    def answer() -> list[int]:
        with pio.load(folder, plugin=plugin, progress=False) as model:
            skipped = model.loaded.weights.skipped
            assert sum(skipped.values()) == len(more) and all(skipped)
            return model.generate([3, 7, 1], temperature=0.0, max_new_tokens=6, ignore_eos=True).token_ids

    more: dict[str, tuple[int, ...]] = {}
    before = answer()
    more = SHAPES
    write_safetensors(folder / "model.safetensors", {**tensors, **{n: tensor(s) for n, s in more.items()}})
    assert answer() == before
    write_safetensors(folder / "model.safetensors", {**tensors, "model.layers.0.extra.weight": tensor((3,))})
    with pytest.raises(CheckpointError, match=r"does not use 1 of the \d+ tensors: 'model.layers.0.extra.weight'"):
        pio.load(folder, plugin=plugin, progress=False)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.bias", (24,)),  # of a projection that is one with its block
        ("model.layers.0.attn.bias", (1, 1, 24, 23)),
        ("model.layers.0.attn.bias", (2, 2)),
        ("model.layers.0.mlp.bias", (1, 1, 64, 64)),
        ("model.layers.0.self_attn.q_proj.bias", (24,)),
        ("model.inv_freq", (5,)),
        ("model.layers.0.self_attn.q_proj.weight_scale", (1,)),  # of weights in float8
        ("model.layers.0.self_attn.q_proj.scales", (1,)),
        ("model.position_ids.weight", (64, 24)),
        ("x_k_scale", (1,)),
        ("k_scale.weight", (1,)),
        ("", ()),
    ],
)
def test_what_may_be_a_weight_is_not_skipped(name: str, shape: tuple[int, ...]) -> None:
    assert buffer(name, shape) is None


def test_a_model_may_take_what_others_skip(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"model.position_ids": tensor((5,)), "v_scale": tensor((1,))})
    (tmp_path / "config.json").write_text(json.dumps({}))
    weights = Checkpoint(tmp_path).weights()
    assert weights.take("model.position_ids", (5,)).tolist() == [0.5] * 5
    assert weights.skipped == {"scales of a cache or of attention in float8, which pio does not use": 1}
    weights.finish()
