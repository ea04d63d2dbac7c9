"""What an outline counts is what a model holds then; the outline itself makes nothing."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import pio
from pio import registry
from pio.device import Allocation, allocated_bytes
from pio.layers.outline import Outline
from pio.layers.quantization import Quantization
from pio.loaded import outline
from pio.loading.checkpoint import Checkpoint
from pio.loading.weights import Weights
from pio.manifest import import_object
from pio.memory import storage
from pio.testing.random_checkpoint import write_random_checkpoint

SMALL: dict[str, Any] = {
    "vocab_size": 29,
    "hidden_size": 200,
    "intermediate_size": 56,
    "moe_intermediate_size": 24,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "torch_dtype": "bfloat16",
}
LATENT: dict[str, Any] = {  # of 3 x (36 + 52) x 312 numbers much is made
    **SMALL,
    "model_type": "glm4_moe_lite",
    "num_attention_heads": 3,
    "q_lora_rank": 28,
    "kv_lora_rank": 312,
    "qk_nope_head_dim": 36,
    "qk_rope_head_dim": 6,
    "v_head_dim": 52,
    "n_routed_experts": 4,
}
RECURRENT: dict[str, Any] = {
    **SMALL,
    "model_type": "qwen3_next",
    "layer_types": ["linear_attention", "full_attention"],
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 5,
    "shared_expert_intermediate_size": 28,
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 20,
    "linear_num_key_heads": 14,
    "linear_num_value_heads": 28,
}
PLAIN: dict[str, Any] = {**SMALL, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16}
MODELS = pytest.mark.parametrize("config", [LATENT, RECURRENT, PLAIN], ids=lambda config: str(config["model_type"]))


@pytest.fixture
def folder(config: dict[str, Any], tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path / "model", config, tokenizer=False)


def outlined(folder: Path) -> Outline:
    checkpoint = Checkpoint(folder)
    plugin = import_object(registry.choose(checkpoint.config)[0].factory)()
    return outline(plugin.build_model, plugin.config_class.from_checkpoint(checkpoint.config), Weights(folder))


@MODELS
@pytest.mark.parametrize(
    ("form", "policy"), [("int4", "balanced"), ("int8", "uniform"), ("int4_zero_point", "uniform")]
)
def test_what_is_counted_is_what_is_held(folder: Path, form: str, policy: str) -> None:
    found, forms = outlined(folder), Quantization.of(form, policy).forms
    with pio.load(folder, quantize=form, quantize_policy=policy) as model:
        assert found.new_bytes(forms) + found.kept_bytes == model.metadata.memory["weights"]


@MODELS
def test_a_limit_refuses_no_more_than_what_does_not_fit(folder: Path) -> None:
    options: dict[str, Any] = {"quantize": "int4", "context_length": 32, "prefill_chunk": 2, "max_batch_sequences": 1}
    with pio.load(folder, **options) as model:
        memory = model.metadata.memory
    request = 16 << 10  # what choosing a token takes; of latent attention 329 kB are stored that nobody holds
    with pio.load(folder, memory_limit=sum(memory.values()) + request, **options) as model:
        assert len(model.generate([5, 6, 7], max_new_tokens=3, ignore_eos=True).token_ids) == 3
    with pytest.raises(pio.OutOfMemoryError, match="the weights with quantize='int4'"):
        pio.load(folder, memory_limit=memory["weights"] - 1, **options)


@MODELS
def test_an_outline_makes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    class Counted(Allocation):
        def __init__(self, nbytes: int, *rest: Any) -> None:
            taken.append(nbytes)
            super().__init__(nbytes, *rest)

    gc.collect()
    before = allocated_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(storage, "Allocation", Counted)
        found = outlined(folder)
    gc.collect()
    assert allocated_bytes() == before
    rooms = 5  # what blocks compute in; the rest are blanks, and vectors that are kept as float32
    assert sum(sorted(taken)[:-rooms]) < 2000
    assert all(nbytes not in taken for nbytes in (found.others[name] for name in found.remade))
