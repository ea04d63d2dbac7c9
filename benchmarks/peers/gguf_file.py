"""The model as llama.cpp reads it: names, hyperparameters and tokenizer in one GGUF file, weights in bfloat16."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from benchmarks.peers.gguf_tensors import gguf_tensors
from benchmarks.peers.shapes import is_mixture

ARCHITECTURES = {"qwen3": "qwen3", "qwen3_moe": "qwen3moe", "qwen3_next": "qwen3next"}


def write_gguf(source: Path, target: Path) -> None:
    """Write the folder ``source`` as the file ``target``; vectors become float32, which llama.cpp expects."""
    import gguf
    import numpy

    config = json.loads((source / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(target, ARCHITECTURES[config["model_type"]])
    _add_hyperparameters(writer, config)
    if is_mixture(config):
        _add_experts(writer, config)
    if config["model_type"] == "qwen3_next":
        _add_recurrence(writer, config)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    _add_tokenizer(writer, json.loads((source / "tokenizer.json").read_text("utf-8")), config)
    made = list(gguf_tensors(config, _stored(source / "model.safetensors")))
    for tensor in made:
        size = math.prod(tensor.shape)
        if tensor.exact:
            writer.add_tensor_info(tensor.name, tensor.shape, numpy.dtype("float32"), 4 * size)
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor_info(tensor.name, tensor.shape, numpy.dtype("uint16"), 2 * size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in made:  # one after another: together they need not fit in memory
        writer.write_tensor_data(tensor.data())
    writer.close()


def bytes_read(model: Path) -> int:
    """Return the bytes of weights that a token reads: of experts the chosen ones, of an embedding apart a row."""
    import gguf

    reader = gguf.GGUFReader(model)
    used = [field.contents() for name, field in reader.fields.items() if name.endswith(".expert_used_count")]
    untied = any(tensor.name == "output.weight" for tensor in reader.tensors)
    total = 0
    for tensor in reader.tensors:
        size, last = int(tensor.n_bytes), int(tensor.shape[-1])
        if tensor.name.endswith("_exps.weight"):
            size = size * used[0] // last
        elif untied and tensor.name == "token_embd.weight":
            size //= last
        total += size
    return total


def _stored(path: Path) -> dict[str, Any]:
    """Map a file of bfloat16 tensors: their bits by name."""
    import numpy

    data = numpy.memmap(path, numpy.uint8, "r")
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    header = json.loads(data[8 : 8 + length].tobytes())
    header.pop("__metadata__", None)
    numbers = data[8 + length :].view(numpy.uint16)
    return {
        name: numbers[tensor["data_offsets"][0] // 2 : tensor["data_offsets"][1] // 2].reshape(tensor["shape"])
        for name, tensor in header.items()
    }


def _add_hyperparameters(writer: Any, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])


def _add_experts(writer: Any, config: dict[str, Any]) -> None:
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if shared := config.get("shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(shared)


def _add_recurrence(writer: Any, config: dict[str, Any]) -> None:
    """Add what recurrent layers need, and how much of a head turns in those that attend."""
    turned = (config.get("rope_parameters") or config).get("partial_rotary_factor", 0.25)
    writer.add_rope_dimension_count(int(config["head_dim"] * turned))
    writer.add_full_attention_interval(config["full_attention_interval"])
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(config["linear_key_head_dim"])
    writer.add_ssm_group_count(config["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(config["linear_num_value_heads"])
    writer.add_ssm_inner_size(config["linear_num_value_heads"] * config["linear_value_head_dim"])


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    import gguf

    tokens = [f"[PAD{i}]" for i in range(config["vocab_size"])]
    types = [gguf.TokenType.UNUSED] * len(tokens)
    for text, i in tokenizer["model"]["vocab"].items():
        tokens[i], types[i] = text, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], gguf.TokenType.CONTROL
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
