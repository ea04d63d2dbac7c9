"""The golden checkpoints with experts: what each is for stands in README.md."""

from typing import Any

from oracle import Case

COMMON: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "use_cache": True,
}
BASES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        **COMMON,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "qwen3_next": {
        **COMMON,
        "decoder_sparse_step": 1,
        "linear_conv_kernel_dim": 4,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
    },
    "glm4_moe_lite": {
        **COMMON,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.8,
        "rms_norm_eps": 1e-5,
    },
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def qwen(sizes: tuple[int, int, int], heads: tuple[int, int, int], experts: tuple[int, int, int]) -> dict[str, int]:
    return {
        **dict(zip(("vocab_size", "hidden_size", "intermediate_size"), sizes, strict=True)),
        **dict(zip(("num_attention_heads", "num_key_value_heads", "head_dim"), heads, strict=True)),
        **dict(zip(("num_experts", "num_experts_per_tok", "moe_intermediate_size"), experts, strict=True)),
    }


def linear(keys: tuple[int, int], values: tuple[int, int], shared: int) -> dict[str, int]:
    """Heads and their widths, and the width of the shared expert."""
    return {
        "linear_num_key_heads": keys[0],
        "linear_key_head_dim": keys[1],
        "linear_num_value_heads": values[0],
        "linear_value_head_dim": values[1],
        "shared_expert_intermediate_size": shared,
    }


def glm(
    sizes: tuple[int, int, int], attention: tuple[int, int | None, int, int, int, int], experts: tuple[int, int, int]
) -> dict[str, int | None]:
    names = ("num_attention_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    return {
        **dict(zip(("vocab_size", "hidden_size", "intermediate_size"), sizes, strict=True)),
        **dict(zip(names, attention, strict=True)),
        "num_key_value_heads": attention[0],
        **dict(zip(("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"), experts, strict=True)),
    }


QWEN3_MOE = [
    Case("top2_of_7", (1, 2, 17, 90), qwen((131, 44, 75), (4, 2, 16), (7, 2, 20)), layers=True),
    Case(
        "top3_unnormed_long",
        (1, 2, 300),
        {**qwen((97, 37, 51), (3, 1, 14), (10, 3, 13)), "norm_topk_prob": False, "mlp_only_layers": [1]},
        published=True,
    ),
    # layers 1, 3 and 5 would have experts, layer 3 is told not to
    Case(
        "sparse_step2_tied_sharded_bf16",
        (2, 49),
        {
            **qwen((113, 40, 58), (4, 4, 12), (5, 1, 22)),
            "num_hidden_layers": 6,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "tie_word_embeddings": True,
        },
        dtype="bfloat16",
        published=True,
        stored_head=True,
        shard_size="24KB",
    ),
    Case(
        "yarn_f16",
        (17, 90),
        {**qwen((101, 36, 45), (6, 2, 16), (9, 2, 18)), "num_hidden_layers": 2, "max_position_embeddings": 40},
        dtype="float16",
        published=True,
        rope=YARN,
    ),
    Case(
        "top1_unnormed_bias",
        (1, 65),
        {
            **qwen((107, 33, 57), (3, 3, 10), (6, 1, 17)),
            "attention_bias": True,
            "eos_token_id": [2, 0],
            "mlp_only_layers": [0],
            "norm_topk_prob": False,
            "rms_norm_eps": 1e-2,
        },
    ),
]

QWEN3_NEXT = [
    Case(
        "heads1x",
        (1, 2, 17, 90),
        {
            **qwen((131, 44, 75), (4, 2, 32), (7, 2, 20)),
            **linear((3, 10), (3, 14), 26),
            "num_hidden_layers": 4,
            "full_attention_interval": 2,
            "partial_rotary_factor": 0.25,
        },
        published=True,
        layers=True,
    ),
    Case(
        "heads2x_unnormed_long",
        (1, 3, 64, 65, 300),
        {
            **qwen((97, 37, 51), (3, 1, 20), (6, 3, 15)),
            **linear((2, 9), (4, 13), 11),
            "layer_types": ["full_attention", "linear_attention", "linear_attention"],
            "linear_conv_kernel_dim": 3,
            "mlp_only_layers": [1],
            "norm_topk_prob": False,
            "partial_rotary_factor": 0.5,
            "rms_norm_eps": 1e-2,
        },
    ),
    # partial_rotary_factor is not there: 0.25
    Case(
        "heads3x_sharded_bf16",
        (2, 130),
        {
            **qwen((113, 40, 58), (4, 2, 16), (5, 1, 22)),
            **linear((2, 16), (6, 32), 30),
            "num_hidden_layers": 4,
            "decoder_sparse_step": 2,
            "full_attention_interval": 4,
            "rms_norm_eps": 1e-3,
        },
        dtype="bfloat16",
        published=True,
        shard_size="40KB",
    ),
    Case(
        "conv2_tied_yarn_f16",
        (5, 128),
        {
            **qwen((101, 36, 45), (2, 2, 24), (9, 2, 18)),
            **linear((4, 24), (8, 12), 21),
            "attention_bias": True,
            "eos_token_id": [2, 0],
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "linear_conv_kernel_dim": 2,
            "partial_rotary_factor": 0.5,
            "tie_word_embeddings": True,
        },
        dtype="float16",
        rope=YARN,
    ),
]

GLM4_MOE_LITE = [
    Case(
        "as_published",
        (1, 2, 17, 90),
        {
            **glm((131, 44, 75), (3, 22, 26, 14, 8, 18), (7, 2, 20)),
            "first_k_dense_replace": 1,
            "num_nextn_predict_layers": 1,
            "partial_rotary_factor": 1.0,
            "topk_method": "noaux_tc",
        },
        published=True,
        layers=True,
    ),
    # four groups of three experts, two groups are open; no layer is dense
    Case(
        "groups_no_q_lora_long",
        (1, 2, 300),
        {
            **glm((97, 37, 51), (4, None, 19, 10, 6, 13), (12, 3, 13)),
            "mlp_layer_types": ["sparse", "sparse"],
            "n_group": 4,
            "n_shared_experts": 2,
            "norm_topk_prob": False,
            "num_hidden_layers": 2,
            "rms_norm_eps": 1e-2,
            "rope_interleave": False,
            "routed_scaling_factor": 0.7,
            "topk_group": 2,
        },
    ),
    Case(
        "yarn_mscale_sharded_bf16",
        (2, 70),
        {
            **glm((113, 40, 58), (2, 20, 32, 16, 10, 12), (9, 3, 18)),
            "attention_bias": True,
            "first_k_dense_replace": 2,
            "num_hidden_layers": 4,
            "num_nextn_predict_layers": 1,
            "topk_method": "noaux_tc",
        },
        dtype="bfloat16",
        published=True,
        rope={**YARN, "mscale": 1.4, "mscale_all_dim": 0.6},
        shard_size="40KB",
    ),
    # three groups of four, one is open; every layer has experts
    Case(
        "one_group_tied_yarn_f16",
        (33,),
        {
            **glm((101, 36, 45), (5, 17, 16, 12, 4, 10), (12, 2, 15)),
            "eos_token_id": [2, 0],
            "first_k_dense_replace": 0,
            "n_group": 3,
            "num_hidden_layers": 2,
            "rope_interleave": True,
            "routed_scaling_factor": 2.5,
            "tie_word_embeddings": True,
        },
        dtype="float16",
        published=True,
        rope=YARN,
    ),
]

CASES = {"qwen3_moe": QWEN3_MOE, "qwen3_next": QWEN3_NEXT, "glm4_moe_lite": GLM4_MOE_LITE}
