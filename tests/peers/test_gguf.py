"""The same weights as llama.cpp names, merges and stores them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from peer_models import ALL, CONFIG, LATENT, MOE, NEXT, stored

from benchmarks.peers.gguf_file import write_gguf
from benchmarks.peers.gguf_hyperparameters import add_hyperparameters
from benchmarks.peers.gguf_tensors import GgufTensor, as_float32, gguf_tensors
from benchmarks.peers.shapes import shapes


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            CONFIG | {"model_type": "gpt"},
            "model_type: llama.cpp is given qwen3, qwen3_moe, qwen3_next, glm4_moe_lite, ",
        ),
        (MOE | {"mlp_only_layers": [1]}, "mlp_only_layers: llama.cpp knows only [], found [1]"),
        (NEXT | {"norm_topk_prob": False}, "norm_topk_prob: llama.cpp knows only True, found False"),
        (LATENT | {"n_group": 3}, "n_group: llama.cpp knows only 1, found 3"),
    ],
)
def test_what_llama_cpp_does_otherwise_is_refused(config: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ValueError, match=re.escape(complaint)):
        write_gguf(tmp_path, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


class Written:
    """What a writer of GGUF files was told, by the method that told it."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *value: self.found.update({name.removeprefix("add_"): value[-1]})


def test_llama_cpp_is_told_of_latents_as_one_head_of_keys() -> None:
    writer = Written()
    add_hyperparameters(writer, LATENT)
    assert writer.found["head_count"] == 3 and writer.found["head_count_kv"] == 1
    assert (writer.found["key_length"], writer.found["value_length"]) == (80, 64)
    assert (writer.found["key_length_mla"], writer.found["value_length_mla"]) == (40, 32)
    assert (writer.found["uint32"], writer.found["leading_dense_block_count"]) == (2, 1)


def test_a_rotary_factor_may_lie_among_its_own_kind() -> None:
    writer, apart = Written(), {name: value for name, value in NEXT.items() if "rotary" not in name}
    add_hyperparameters(writer, apart | {"rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 0.25}})
    assert (writer.found["rope_freq_base"], writer.found["rope_dimension_count"]) == (5e5, 4)
    with pytest.raises(ValueError, match=r"num_experts: missing in config\.json"):
        add_hyperparameters(Written(), {name: value for name, value in MOE.items() if name != "num_experts"})


def for_llama_cpp(config: dict[str, Any]) -> dict[str, GgufTensor]:
    """Return what llama.cpp makes of made-up tensors, by name; each is what it is said to be."""
    found = list(gguf_tensors(config, stored(config)))
    named = {tensor.name: tensor for tensor in found}
    assert len(named) == len(found)
    for tensor in found:
        data = tensor.data()
        assert (data.shape, data.dtype) == (tensor.shape, numpy.float32 if tensor.exact else numpy.uint16), tensor.name
    assert sum(tensor.data().size for tensor in found) == sum(math.prod(shape) for shape in shapes(config).values())
    return named


@pytest.mark.parametrize("config", ALL)
def test_every_tensor_has_a_name_for_llama_cpp(config: dict[str, Any]) -> None:
    names = set(for_llama_cpp(config | {"tie_word_embeddings": False}))
    assert {"token_embd.weight", "output.weight", "output_norm.weight", "blk.1.attn_norm.weight"} < names
    last = config["num_hidden_layers"] - 1
    queries = "attn_q_b" if config is LATENT else "attn_q"
    assert {f"blk.{last}.{queries}.weight", f"blk.{last}.attn_output.weight"} < names
    after = "post_attention_norm" if config is NEXT else "ffn_norm"
    assert f"blk.0.{after}.weight" in names


def test_llama_cpp_has_all_experts_of_a_layer_in_one_tensor() -> None:
    found, given = for_llama_cpp(MOE), stored(MOE)
    assert "blk.0.ffn_down.weight" not in found
    down = found["blk.1.ffn_down_exps.weight"]
    assert down.shape == (5, 48, 24) and not down.exact
    for i in range(5):
        assert (down.data()[i] == given[f"model.layers.1.mlp.experts.{i}.down_proj.weight"]).all()
    assert found["blk.0.ffn_gate_inp.weight"].exact
    assert (found["blk.0.attn_norm.weight"].data() == as_float32(given["model.layers.0.input_layernorm.weight"])).all()


def test_llama_cpp_has_what_makes_keys_and_values_of_latents_head_by_head() -> None:
    found, given = for_llama_cpp(LATENT), stored(LATENT)
    both = given["model.layers.1.self_attn.kv_b_proj.weight"]  # three heads, each 24 rows for keys and 32 for values
    asking, valued = (found[f"blk.1.{name}.weight"].data() for name in ("attn_k_b", "attn_v_b"))
    for head in range(3):
        k, v = numpy.split(both[56 * head : 56 * (head + 1)], [24])
        assert (asking[head] == k.T).all() and (valued[head] == v).all()
    bias = found["blk.1.exp_probs_b.bias"]
    assert bias.exact and bias.shape == (5,)
    assert "blk.0.ffn_gate_inp.weight" not in found and "blk.0.ffn_down.weight" in found


def test_llama_cpp_has_recurrent_layers_its_own_way() -> None:
    found, given = for_llama_cpp(NEXT), stored(NEXT)
    at = "model.layers.2.linear_attn."
    # two key heads, each with a query and a key of 16, three values of 8 and their gates
    rows = given[at + "in_proj_qkvz.weight"]
    mixed, gates = (found[f"blk.2.{name}.weight"].data() for name in ("attn_qkv", "attn_gate"))
    for head in range(2):
        q, k, v, z = numpy.split(rows[80 * head : 80 * (head + 1)], [16, 32, 56])
        assert (mixed[16 * head : 16 * (head + 1)] == q).all()
        assert (mixed[32 + 16 * head : 32 + 16 * (head + 1)] == k).all()
        assert (mixed[64 + 24 * head : 64 + 24 * (head + 1)] == v).all()
        assert (gates[24 * head : 24 * (head + 1)] == z).all()
    assert found["blk.2.ssm_conv1d.weight"].shape == (112, 4) and found["blk.2.ssm_conv1d.weight"].exact
    decay = [-math.exp(number) for number in as_float32(given[at + "A_log"]).tolist()]
    assert found["blk.2.ssm_a"].data().tolist() == pytest.approx(decay, rel=1e-6)
    assert (found["blk.2.ssm_dt.bias"].data() == as_float32(given[at + "dt_bias"])).all()
    assert (found["blk.2.ssm_norm.weight"].data() == as_float32(given[at + "norm.weight"])).all()
    norm = as_float32(given["model.layers.2.post_attention_layernorm.weight"])
    assert (found["blk.2.post_attention_norm.weight"].data() == norm + 1).all()
    assert found["blk.3.ffn_gate_inp_shexp.weight"].shape == (48,)
