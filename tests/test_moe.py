"""Mixtures of experts in models of any size."""

import pytest

import pio
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


@pytest.mark.parametrize("options", [{"quantize": "int4"}, {"activation_dtype": "bfloat16"}, {}])
def test_rows_narrower_than_their_packed_form(tmp_path, options):
    """A row of 16 numbers takes more bytes in the form that matrices meet than as floats."""
    folder = write_random_checkpoint(tmp_path / "narrow", NARROW)
    ids, found = [1, 900, 2, 4000, 5, 6, 77, 8], []
    for chunk in (len(ids), 1):
        with pio.load(folder, context_length=64, prefill_chunk=chunk, max_batch_sequences=1, **options) as model:
            found.append(bits(model.logits(ids)))
    assert found[0] == found[1]
