"""Names and shapes of a checkpoint's tensors, as published, from its config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ARCHITECTURES = ("qwen3", "qwen3_moe", "qwen3_next")
ZERO_CENTRED = ("qwen3_next",)  # norms of these multiply by one more than what is stored


def shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of every tensor.

    Raises:
        ValueError: The config is of no architecture that is known here, or mixes dense layers with sparse ones.
    """
    _check(config)
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for i in range(config["num_hidden_layers"]):
        for name, shape in _layer(config, i).items():
            yield f"model.layers.{i}.{name}", shape
    yield "model.norm.weight", (hidden,)
    if not config.get("tie_word_embeddings", False):
        yield "lm_head.weight", (vocabulary, hidden)


def is_mixture(config: dict[str, Any]) -> bool:
    """Return whether a token reads only some of the weights."""
    return "num_experts" in config


def neutral(config: dict[str, Any], name: str) -> float:
    """Return the number that every element of a vector is: a norm so made only normalises."""
    return 0.0 if config["model_type"] in ZERO_CENTRED and not name.endswith("linear_attn.norm.weight") else 1.0


def attends(config: dict[str, Any], layer: int) -> bool:
    """Return whether a layer attends; the others are recurrent."""
    return config["model_type"] != "qwen3_next" or (layer + 1) % config["full_attention_interval"] == 0


def _check(config: dict[str, Any]) -> None:
    found = config.get("model_type")
    if found not in ARCHITECTURES:
        raise ValueError(f"model_type: expected one of {', '.join(ARCHITECTURES)}, found {found!r}")
    expected: dict[str, Any] = {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
    for name, usual in expected.items():
        if is_mixture(config) and config.get(name, usual) != usual:
            raise ValueError(f"{name}: llama.cpp knows only {usual}, found {config[name]}")


def _layer(config: dict[str, Any], layer: int) -> dict[str, tuple[int, ...]]:
    hidden = config["hidden_size"]
    return {
        "input_layernorm.weight": (hidden,),
        **(_attention(config) if attends(config, layer) else _recurrence(config)),
        "post_attention_layernorm.weight": (hidden,),
        **(_experts(config) if is_mixture(config) else _feed("mlp", hidden, config["intermediate_size"])),
    }


def _attention(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    gates = queries if config["model_type"] == "qwen3_next" else 0
    return {
        "self_attn.q_proj.weight": (queries + gates, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.q_norm.weight": (head,),
        "self_attn.k_norm.weight": (head,),
        "self_attn.o_proj.weight": (hidden, queries),
    }


def _recurrence(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, heads = config["hidden_size"], config["linear_num_value_heads"]
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    values = heads * config["linear_value_head_dim"]
    return {
        "linear_attn.in_proj_qkvz.weight": (2 * keys + 2 * values, hidden),
        "linear_attn.in_proj_ba.weight": (2 * heads, hidden),
        "linear_attn.conv1d.weight": (2 * keys + values, 1, config["linear_conv_kernel_dim"]),
        "linear_attn.A_log": (heads,),
        "linear_attn.dt_bias": (heads,),
        "linear_attn.norm.weight": (config["linear_value_head_dim"],),
        "linear_attn.out_proj.weight": (hidden, values),
    }


def _experts(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["moe_intermediate_size"]
    found: dict[str, tuple[int, ...]] = {"mlp.gate.weight": (config["num_experts"], hidden)}
    for i in range(config["num_experts"]):
        found |= _feed(f"mlp.experts.{i}", hidden, inner)
    if shared := config.get("shared_expert_intermediate_size"):
        found |= _feed("mlp.shared_expert", hidden, shared)
        found["mlp.shared_expert_gate.weight"] = (1, hidden)
    return found


def _feed(at: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{at}.gate_proj.weight": (inner, hidden),
        f"{at}.up_proj.weight": (inner, hidden),
        f"{at}.down_proj.weight": (hidden, inner),
    }
