"""Make the golden qwen3 checkpoints: tiny random models, with what transformers says they answer.

    python tests/golden/make_qwen3.py [OUT]      (needs the extra `oracle`; OUT/qwen3 is tests/golden/qwen3 by default)

Each case becomes a Hugging Face folder with a folder `expected/` inside it; README.md beside this file describes both.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from oracle import (
    DTYPES,
    SMALLEST_MARGIN,
    Case,
    check_cache,
    config_json,
    greedy,
    make,
    outputs,
    seeded,
    write_prompts,
)
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

BASE: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "max_window_layers": 2,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_cache": True,
    "use_sliding_window": False,
}


def shape(vocab: int, hidden: int, intermediate: int, heads: int, kv_heads: int, head_dim: int) -> dict[str, int]:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }


SMALL = shape(97, 28, 45, 4, 2, 16)
YARN = {"rope_type": "yarn", "factor": 4.0}
CASES = [
    Case("tied_gqa2", (1, 2, 17, 90), shape(131, 52, 75, 4, 2, 24), layers=True),
    Case(
        "untied_mha_long",
        (1, 2, 17, 90, 300),
        {**shape(97, 37, 51, 3, 3, 10), "tie_word_embeddings": False, "rms_norm_eps": 1e-2, "rope_theta": 1000000},
        published=True,
    ),
    Case(
        "tied_stored_head_bf16",
        (2, 17, 90),
        {**shape(151, 44, 75, 6, 2, 16), "rope_theta": 1000000},
        dtype="bfloat16",
        published=True,
        stored_head=True,
    ),
    Case(
        "mqa_f16",
        (1, 33),
        {**shape(113, 52, 61, 5, 1, 40), "tie_word_embeddings": False, "eos_token_id": [2, 0]},
        dtype="float16",
    ),
    Case("bias_gqa3", (17, 65), {**shape(101, 33, 57, 3, 1, 12), "attention_bias": True, "rms_norm_eps": 1e-5}),
    Case(
        "bias_sharded_bf16",
        (2, 49),
        # the window is there and switched off: it must have no effect
        {
            **shape(127, 35, 53, 4, 4, 10),
            "attention_bias": True,
            "tie_word_embeddings": False,
            "sliding_window": 8,
            "max_window_layers": 1,
        },
        dtype="bfloat16",
        published=True,
        shard_size="12KB",
    ),
    Case("head128_bf16", (70,), {**shape(211, 64, 96, 2, 1, 128), "num_hidden_layers": 1}, dtype="bfloat16"),
    # as the published model cards say: max_position_embeddings stays, factor x original is the new context
    Case(
        "yarn",
        (17, 90),
        {**SMALL, "max_position_embeddings": 40},
        published=True,
        rope={**YARN, "original_max_position_embeddings": 32},
    ),
    Case(
        "yarn_attention_factor",
        (90,),
        {**SMALL, "max_position_embeddings": 64},
        rope={
            **YARN,
            "original_max_position_embeddings": 16,
            "factor": 8.0,
            "attention_factor": 0.83,
            "beta_fast": 5,
            "beta_slow": 0.4,
            "truncate": False,
        },
    ),
    Case(
        "yarn_mscale_f16",
        (90,),
        {**SMALL, "max_position_embeddings": 128},
        dtype="float16",
        published=True,
        rope={
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "mscale": 1.4,
            "mscale_all_dim": 0.6,
        },
    ),
    Case("rope_linear", (40,), {**SMALL, "num_hidden_layers": 1}, rope={"rope_type": "linear", "factor": 2.5}),
    Case(
        "rope_llama3",
        (90,),
        {**SMALL, "max_position_embeddings": 256},
        rope={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    # layer 0 sees everything, layers 1 and 2 sixteen positions
    Case(
        "sliding_max_window_layers",
        (5, 16, 17, 70),
        {**SMALL, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
        published=True,
    ),
    Case(
        "sliding_layer_types_bf16",
        (70,),
        {
            **SMALL,
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        dtype="bfloat16",
    ),
]


def randomise(model: Qwen3ForCausalLM, name: str) -> None:
    """Weights large enough that every part of the model decides which token comes next."""
    generator = seeded(name)
    for key, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in key:
            weight.data = 1 + 0.3 * noise
        elif key.endswith("bias"):
            weight.data = 0.4 * noise
        elif "embed_tokens" in key:
            weight.data = 0.25 * noise
        else:
            weight.data = 1.3 * noise / math.sqrt(weight.shape[1])


def write_checkpoint(case: Case, folder: Path) -> None:
    text = json.dumps(config_json(case, Qwen3Config, "Qwen3ForCausalLM", BASE), indent=2) + "\n"
    (folder / "config.json").write_text(text)
    model = Qwen3ForCausalLM(Qwen3Config.from_pretrained(folder))
    randomise(model, case.name)
    model.tie_weights()
    model.to(DTYPES[case.dtype]).save_pretrained(folder, max_shard_size=case.shard_size or "1GB")
    (folder / "config.json").write_text(text)  # save_pretrained wrote its own
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.stored_head:
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def choose_prompt(model: Qwen3ForCausalLM, case: Case, length: int) -> dict[str, Any]:
    """The first random prompt whose greedy answer hangs on no near tie."""
    vocab = case.config["vocab_size"]
    for attempt in range(1000):
        ids = torch.randint(vocab, (length,), generator=seeded(f"{case.name}/{length}/{attempt}")).tolist()
        if length > 5:
            ids[3], ids[5] = vocab - 1, 0
        tokens, margins = greedy(model, ids)
        if min(margins) > SMALLEST_MARGIN and len(set(tokens)) > 5:
            return {"ids": ids, "greedy": tokens, "smallest_margin": min(margins), "margins": margins}
    raise RuntimeError(f"{case.name}: every prompt of {length} tokens meets a near tie")


def layer_outputs(model: Qwen3ForCausalLM, ids: list[int]) -> dict[str, torch.Tensor]:
    modules = {"embed_tokens": model.model.embed_tokens, "norm": model.model.norm}
    for i, layer in enumerate(model.model.layers):
        modules |= {f"layers.{i}": layer, f"layers.{i}.self_attn": layer.self_attn, f"layers.{i}.mlp": layer.mlp}
    return outputs(model, modules, ids)


def write_expected(case: Case, folder: Path) -> float:
    """Ask transformers, which reads the stored folder and computes in float32. Returns the smallest margin."""
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config = GenerationConfig()  # no end of sequence
    expected = folder / "expected"
    expected.mkdir()
    prompts, logits = [], {}
    for i, length in enumerate(case.prompts):
        prompt = choose_prompt(model, case, length)
        check_cache(case, model(torch.tensor([prompt["ids"] + prompt["greedy"]]), use_cache=False).logits[0], prompt)
        prompts.append(prompt)
        logits[f"logits.{i}"] = model(torch.tensor([prompt["ids"]]), use_cache=False).logits[0].contiguous()
    save_file(logits, expected / "logits.safetensors")
    if case.layers:
        chosen = max((p["ids"] for p in prompts if len(p["ids"]) <= 20), key=len)
        save_file(layer_outputs(model, chosen), expected / "layers.safetensors")
    write_prompts(case, prompts, expected)
    return min(p["smallest_margin"] for p in prompts)


def write(case: Case, architecture: str, folder: Path) -> str:
    write_checkpoint(case, folder)
    return f"smallest margin {write_expected(case, folder):.4f}"


if __name__ == "__main__":
    make(__doc__, {"qwen3": CASES}, write)
