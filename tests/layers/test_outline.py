"""What an outline counts is what a model holds then; the outline itself makes nothing."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import pio
from pio.layers.outline import Outline
from pio.layers.quantization import Quantization
from pio.layers.source import Source
from pio.loading.checkpoint import Checkpoint
from pio.loading.weights import Weights
from pio.memory import storage
from pio.memory.allocation import Allocation, allocated_bytes
from pio.plugin import registry
from pio.plugin.assembly import outline
from pio.plugin.manifest import import_object
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
@pytest.mark.parametrize("quantize", [None, "int8", "int4", "int4_zero_point"])
@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
def test_a_limit_is_what_a_model_says_it_takes(folder: Path, quantize: str | None, dtype: str | None) -> None:
    options: dict[str, Any] = {"quantize": quantize, "dtype": dtype, "context_length": 32, "prefill_chunk": 2}
    options |= {"max_batch_sequences": 1, "quantize_policy": "uniform" if quantize == "int8" else None}
    with pio.load(folder, **options) as model:
        memory = model.metadata.memory
        if quantize is None:
            assert model.loaded.model.embed_tokens.weight.nbytes == 29 * 200 * (4 if dtype == "float32" else 2)
    request = 16 << 10  # what choosing a token takes
    with pio.load(folder, memory_limit=sum(memory.values()) + request, **options) as model:
        assert len(model.generate([5, 6, 7], max_new_tokens=3, ignore_eos=True).token_ids) == 3
    pio.load(folder, memory_limit=sum(memory.values()), **options).cleanup()
    with pytest.raises(pio.OutOfMemoryError, match="sampler"):
        pio.load(folder, memory_limit=sum(memory.values()) - 1, **options)
    what = f"the weights with quantize={quantize!r}" if quantize else "the weights"
    with pytest.raises(pio.OutOfMemoryError, match=what):
        pio.load(folder, memory_limit=memory["weights"] - 1, **options)


@MODELS
def test_what_is_refused_was_not_converted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pio.load(folder, dtype="float32", context_length=32, quantize="int4") as model:
        needed = sum(model.metadata.memory.values())
    monkeypatch.setattr(Source, "_converted", lambda *_: pytest.fail("converted"))
    monkeypatch.setattr(Source, "_made", lambda *_: pytest.fail("made"))
    monkeypatch.setattr(Quantization, "pack", lambda *_: pytest.fail("packed"))
    with pytest.raises(pio.OutOfMemoryError):
        pio.load(folder, dtype="float32", context_length=32, quantize="int4", memory_limit=needed - 1)


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
    assert found.matrices and found.others
