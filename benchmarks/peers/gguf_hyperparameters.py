"""A config's numbers as llama.cpp names them."""

from __future__ import annotations

from typing import Any

SIGMOID = 2  # how llama.cpp numbers the functions that make weights of a router's logits


def add_hyperparameters(writer: Any, config: dict[str, Any]) -> None:
    """Add all that a config says to a file.

    Raises:
        ValueError: A field is missing; the message names it.
    """
    fields = Fields(config)
    writer.add_block_count(fields["num_hidden_layers"])
    writer.add_context_length(fields["max_position_embeddings"])
    writer.add_embedding_length(fields["hidden_size"])
    writer.add_feed_forward_length(fields["intermediate_size"])
    writer.add_head_count(fields["num_attention_heads"])
    writer.add_layer_norm_rms_eps(fields["rms_norm_eps"])
    writer.add_rope_freq_base(fields.rope("rope_theta"))
    kind = fields["model_type"]
    if kind == "glm4_moe_lite":
        _add_latents(writer, fields)
        _add_sigmoid_experts(writer, fields)
        return
    writer.add_head_count_kv(fields["num_key_value_heads"])
    writer.add_key_length(fields["head_dim"])
    writer.add_value_length(fields["head_dim"])
    if kind != "qwen3":
        _add_experts(writer, fields)
    if kind == "qwen3_next":
        _add_recurrence(writer, fields)


class Fields(dict[str, Any]):
    """A config whose missing fields are named."""

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{name}: missing in config.json; llama.cpp is given configs as they are published")

    def rope(self, name: str) -> Any:
        """Return a field that lies beside the others, or where later configs keep those of the rotary embedding."""
        return Fields(self.get("rope_parameters") or self)[name]


def _add_experts(writer: Any, fields: Fields) -> None:
    writer.add_expert_count(fields["num_experts"])
    writer.add_expert_used_count(fields["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(fields["moe_intermediate_size"])
    if shared := fields.get("shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(shared)


def _add_sigmoid_experts(writer: Any, fields: Fields) -> None:
    writer.add_expert_count(fields["n_routed_experts"])
    writer.add_expert_used_count(fields["num_experts_per_tok"])
    writer.add_expert_shared_count(fields["n_shared_experts"])
    writer.add_expert_feed_forward_length(fields["moe_intermediate_size"])
    writer.add_leading_dense_block_count(fields["first_k_dense_replace"])
    writer.add_uint32("deepseek2.expert_gating_func", SIGMOID)
    writer.add_expert_weights_norm(fields["norm_topk_prob"])
    writer.add_expert_weights_scale(fields["routed_scaling_factor"])


def _add_latents(writer: Any, fields: Fields) -> None:
    """Add the widths of latent attention, which llama.cpp computes over one head of keys: latent and rotary part."""
    rank, turned = fields["kv_lora_rank"], fields["qk_rope_head_dim"]
    writer.add_head_count_kv(1)
    writer.add_q_lora_rank(fields["q_lora_rank"])
    writer.add_kv_lora_rank(rank)
    writer.add_key_length(rank + turned)
    writer.add_value_length(rank)
    writer.add_key_length_mla(fields["qk_nope_head_dim"] + turned)
    writer.add_value_length_mla(fields["v_head_dim"])
    writer.add_rope_dimension_count(turned)


def _add_recurrence(writer: Any, fields: Fields) -> None:
    """Add what recurrent layers need, and how much of a head turns in those that attend."""
    writer.add_rope_dimension_count(int(fields["head_dim"] * fields.rope("partial_rotary_factor")))
    writer.add_full_attention_interval(fields["full_attention_interval"])
    writer.add_ssm_conv_kernel(fields["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(fields["linear_key_head_dim"])
    writer.add_ssm_group_count(fields["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(fields["linear_num_value_heads"])
    writer.add_ssm_inner_size(fields["linear_num_value_heads"] * fields["linear_value_head_dim"])
