"""Mixtures of experts in models of any size."""

import pytest

import pio
from pio.dtypes import dtype
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.loading.checkpoint import Checkpoint
from pio.testing.compare import bits
from pio.testing.random_checkpoint import write_random_checkpoint

NARROW = {
    "model_type": "qwen3_moe",
    "vocab_size": 4099,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 10,
    "intermediate_size": 24,
    "moe_intermediate_size": 12,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
    "torch_dtype": "bfloat16",
}


SIGMOID = NARROW | {
    "model_type": "glm4_moe_lite",
    "torch_dtype": "float32",
    "num_key_value_heads": 2,
    "head_dim": 4,
    "q_lora_rank": 6,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "n_routed_experts": 5,
}


def test_what_corrects_a_choice_is_not_rounded_where_weights_are(tmp_path):
    weights = Checkpoint(write_random_checkpoint(tmp_path / "sigmoid", SIGMOID)).weights()
    gate = Source(weights, Workspace(1), "model.layers.1.mlp.gate", dtype=dtype("bfloat16"))
    stored = weights.take("model.layers.1.mlp.gate.e_score_correction_bias", (5,))
    assert bits(gate.take_float32("e_score_correction_bias", 5)) == bits(stored)
    assert gate.take("e_score_correction_bias", 5).astype("float32").tolist() != stored.tolist()
    assert gate.take("weight", 5, 16).dtype is dtype("bfloat16")
    with pio.load(tmp_path / "sigmoid", context_length=64, dtype="bfloat16") as model:
        assert bits(model.loaded.model.layers[1].mlp.routed.bias) == bits(stored)


@pytest.mark.parametrize("options", [{"quantize": "int4"}, {"activation_dtype": "bfloat16"}, {}])
def test_rows_narrower_than_their_packed_form(tmp_path, options):
    """A row of 16 numbers takes more bytes in the form that matrices meet than as floats."""
    folder = write_random_checkpoint(tmp_path / "narrow", NARROW)
    ids, found = [1, 900, 2, 4000, 5, 6, 77, 8], []
    for chunk in (len(ids), 1):
        with pio.load(folder, context_length=64, prefill_chunk=chunk, max_batch_sequences=1, **options) as model:
            found.append(bits(model.logits(ids)))
    assert found[0] == found[1]
