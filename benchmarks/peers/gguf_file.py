"""The model as llama.cpp reads it: names, hyperparameters and tokenizer in one GGUF file, weights in bfloat16."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from benchmarks.peers.gguf_hyperparameters import add_hyperparameters
from benchmarks.peers.gguf_tensors import gguf_tensors

ARCHITECTURES = {
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "glm4_moe_lite": "deepseek2",
}
# What llama.cpp takes for granted of an architecture, where configs can say something else.
TAKEN = {
    "qwen3_moe": {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
    "qwen3_next": {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
    "glm4_moe_lite": {"n_group": 1, "topk_group": 1, "rope_interleave": True},
}


def write_gguf(source: Path, target: Path) -> None:
    """Write the folder ``source`` as the file ``target``; vectors become float32, which llama.cpp expects.

    Raises:
        ValueError: llama.cpp has no such model; the message names the field of config.json.
    """
    config = json.loads((source / "config.json").read_text("utf-8"))
    check(config)
    import gguf
    import numpy

    writer = gguf.GGUFWriter(target, ARCHITECTURES[config["model_type"]])
    add_hyperparameters(writer, config)
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


def check(config: dict[str, Any]) -> None:
    """Raise a ValueError that names the field in which llama.cpp differs."""
    found = config["model_type"]
    if found not in ARCHITECTURES:
        raise ValueError(f"model_type: llama.cpp is given {', '.join(ARCHITECTURES)}, found {found!r}")
    for name, usual in TAKEN.get(found, {}).items():
        if config.get(name, usual) != usual:
            raise ValueError(f"{name}: llama.cpp knows only {usual}, found {config[name]}")


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
