"""A checkpoint's tensors as llama.cpp names, merges and stores them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZERO_CENTRED = ("qwen3_next",)  # norms of these multiply by one more than what is stored
EXPERT = re.compile(r"\.experts\.\d+\.")
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b",
    "linear_attn.in_proj_qkvz": "ssm_in",
    "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
TABLES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
EXACT = ("ffn_gate_inp", "ffn_gate_inp_shexp", "ssm_conv1d")  # matrices that llama.cpp expects in float32


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of the file.

    Attributes:
        name: What llama.cpp calls it.
        shape: Slowest dimension first.
        exact: Whether it is stored in float32, else in bfloat16.
        data: Makes it: float32, or the bits of bfloat16 as uint16.
    """

    name: str
    shape: tuple[int, ...]
    exact: bool
    data: Callable[[], NDArray[Any]]


def renamed(name: str, model_type: str) -> str:
    """Return what llama.cpp calls a tensor of a checkpoint; all experts of a layer have one name."""
    stem = EXPERT.sub(".experts.", name).removesuffix(".weight")
    if stem in TABLES:
        return TABLES[stem] + ".weight"
    _, _, number, part = stem.split(".", 3)
    found = NAMES[part]
    if model_type == "qwen3_next" and part == "post_attention_layernorm":
        found = "post_attention_norm"
    return f"blk.{number}.{found}" + (".weight" if name.endswith(".weight") else "")


def gguf_tensors(config: dict[str, Any], stored: Mapping[str, NDArray[Any]]) -> Iterator[GgufTensor]:
    """Yield what llama.cpp makes of a checkpoint's tensors, in their order.

    Args:
        config: The checkpoint's.
        stored: Bits of bfloat16 numbers by name; an expert's follow those of the one before.
    """
    merged: dict[str, list[NDArray[Any]]] = {}
    originals: dict[str, str] = {}
    for name, bits in stored.items():
        new = renamed(name, config["model_type"])
        merged.setdefault(new, []).append(bits)
        originals.setdefault(new, name)
    for new, parts in merged.items():
        name = originals[new]
        if EXPERT.search(name):
            yield GgufTensor(new, (len(parts), *parts[0].shape), False, lambda parts=parts: _stacked(parts))
        elif name.endswith("in_proj_qkvz.weight"):
            yield from _apart(config, new, parts[0])
        elif name.endswith("kv_b_proj.weight"):
            yield from _absorbed(config, new, parts[0])
        else:
            yield _alone(config, new, name, parts[0])


def _alone(config: dict[str, Any], new: str, name: str, bits: NDArray[Any]) -> GgufTensor:
    shape = tuple(size for size in bits.shape if size > 1)
    if len(shape) > 1 and new.split(".")[-2] not in EXACT:
        return GgufTensor(new, shape, False, lambda: bits)
    if name.endswith("A_log"):
        return GgufTensor(new, shape, True, lambda: _decay(bits))
    plus = config["model_type"] in ZERO_CENTRED and name.endswith("norm.weight") and "linear_attn" not in name
    return GgufTensor(new, shape, True, lambda: as_float32(bits).reshape(shape) + (1 if plus else 0))


def _apart(config: dict[str, Any], new: str, bits: NDArray[Any]) -> Iterator[GgufTensor]:
    """Yield queries, keys and values of all heads, and the gates; checkpoints keep those of a key head together."""
    heads, keys = config["linear_num_key_heads"], config["linear_key_head_dim"]
    values = config["linear_num_value_heads"] // heads * config["linear_value_head_dim"]
    width = bits.shape[-1]

    def rows(*ends: int) -> NDArray[Any]:
        import numpy

        groups = bits.reshape(heads, 2 * keys + 2 * values, width)
        return numpy.concatenate([groups[:, a:b].reshape(-1, width) for a, b in pairwise(ends)])

    both, last = 2 * keys + values, 2 * keys + 2 * values
    mixed, gates = (new.replace("ssm_in", name) for name in ("attn_qkv", "attn_gate"))
    yield GgufTensor(mixed, (heads * both, width), False, lambda: rows(0, keys, 2 * keys, both))
    yield GgufTensor(gates, (heads * values, width), False, lambda: rows(both, last))


def _absorbed(config: dict[str, Any], new: str, bits: NDArray[Any]) -> Iterator[GgufTensor]:
    """Yield a matrix a head that makes queries for latents, and one that makes values of latents."""
    heads, key, value = (config[name] for name in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    rank = bits.shape[-1]

    def rows(begin: int, end: int) -> NDArray[Any]:
        return bits.reshape(heads, key + value, rank)[:, begin:end]

    asking, valued = (new.replace("attn_kv_b", name) for name in ("attn_k_b", "attn_v_b"))
    yield GgufTensor(asking, (heads, rank, key), False, lambda: rows(0, key).transpose(0, 2, 1).copy())
    yield GgufTensor(valued, (heads, value, rank), False, lambda: rows(key, key + value).copy())


def _stacked(parts: list[NDArray[Any]]) -> NDArray[Any]:
    import numpy

    return numpy.stack(parts)


def _decay(bits: NDArray[Any]) -> NDArray[Any]:
    import numpy

    return -numpy.exp(as_float32(bits))


def as_float32(bits: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers whose bfloat16 bits these are."""
    import numpy

    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)
