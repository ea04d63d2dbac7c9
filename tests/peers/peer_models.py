"""Small models of every architecture that engines are compared on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest

from benchmarks.peers import checkpoint
from benchmarks.peers.shapes import shapes

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 307,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "rope_theta": 1e6,
}
EXPERTS: dict[str, Any] = {
    "tie_word_embeddings": False,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
MOE = CONFIG | EXPERTS | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
NEXT = (
    CONFIG
    | EXPERTS
    | {
        "model_type": "qwen3_next",
        "architectures": ["Qwen3NextForCausalLM"],
        "num_hidden_layers": 4,
        "full_attention_interval": 4,
        "partial_rotary_factor": 0.5,
        "shared_expert_intermediate_size": 32,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
    }
)
LATENT: dict[str, Any] = {
    "model_type": "glm4_moe_lite",
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "vocab_size": 307,
    "hidden_size": 48,
    "intermediate_size": 80,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "rope_theta": 1e6,
    "q_lora_rank": 40,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_routed_experts": 5,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.8,
}
VISION: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "tie_word_embeddings": True,
    "image_token_id": 269,
    "video_token_id": 270,
    "vision_start_token_id": 266,
    "vision_end_token_id": 267,
    "text_config": {name: value for name, value in CONFIG.items() if name != "architectures"}
    | {
        "model_type": "qwen3_vl_text",
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
        "num_hidden_layers": 3,
        "max_position_embeddings": 1024,
    },
    "vision_config": {
        "model_type": "qwen3_vl",
        "depth": 2,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_heads": 3,
        "num_position_embeddings": 36,
        "out_hidden_size": 48,
        "deepstack_visual_indexes": [0],
        "in_channels": 3,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "hidden_act": "gelu_pytorch_tanh",
    },
}
PUBLISHED = Path(__file__).parents[1] / "golden" / "qwen3_vl" / "video"  # its tokenizer has the marks of VISION
ALL = [pytest.param(config, id=config["model_type"]) for config in (CONFIG, MOE, NEXT, LATENT)]


def made(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    """Write a model whose config lies in no folder with a tokenizer."""
    return checkpoint.write_checkpoint(folder, config, folder / "nothing", seed)


def write_sight(folder: Path) -> Path:
    """Write what a model that sees needs beside its config."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*checkpoint.TOKENIZER, *checkpoint.SIGHT[1:]):
        shutil.copyfile(PUBLISHED / name, folder / name)
    template = json.loads((PUBLISHED / checkpoint.TOKENIZER[1]).read_text("utf-8"))["chat_template"]
    (folder / checkpoint.SIGHT[0]).write_text(template, "utf-8")
    return folder


def stored(config: dict[str, Any]) -> dict[str, numpy.ndarray[Any, Any]]:
    """Return bits of bfloat16 for every tensor, different for each name."""
    source = numpy.random.default_rng(7)
    return {name: source.integers(0x3C00, 0x4000, shape, numpy.uint16) for name, shape in shapes(config).items()}
