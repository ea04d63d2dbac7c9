"""Make the golden checkpoints with experts: tiny random models, with what transformers says they answer.

    python tests/golden/make_moe.py [OUT] [--only qwen3_next/heads1x]      (needs the extra `oracle`)

Each case of moe_cases.py becomes a Hugging Face folder with a folder `expected/` inside it; README.md beside this file
describes both.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import save_torch_state_dict
from moe_cases import BASES, CASES
from moe_weights import published, randomise
from oracle import (
    NEW_TOKENS,
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
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig
from transformers.models.qwen3_next import modeling_qwen3_next

SMALLEST_ROUTER_MARGIN = 0.01  # between the last expert chosen and the first left out, see `router_margin`
# where weights are bfloat16, inputs of layers may be rounded to it too: that asks for more
SMALLEST_MARGIN_ROUNDED, SMALLEST_ROUTER_MARGIN_ROUNDED = 0.05, 0.015
LARGEST_ERROR_ROUNDED = 0.03  # relative L2 of the logits of a position, twice that in an answer
MODELS = {
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
}
LISTENED = ("linear_attn", "self_attn", "mlp")  # in a layer
LISTENED_INSIDE = ("in_proj_qkvz", "in_proj_ba", "norm", "q_a_layernorm", "kv_a_proj_with_mqa", "kv_a_layernorm")


def read_config(folder: Path) -> Any:
    """The config as transformers sees it, which does not know the published name of the dense first layers."""
    config = AutoConfig.from_pretrained(folder)
    if (dense := getattr(config, "first_k_dense_replace", None)) is not None:
        config.mlp_layer_types = ["dense"] * dense + ["sparse"] * (config.num_hidden_layers - dense)
    return config


def write_checkpoint(case: Case, architecture: str, folder: Path) -> None:
    model_class = getattr(transformers, MODELS[architecture])
    key = "dtype" if architecture == "glm4_moe_lite" else "torch_dtype"  # as they were published
    written = config_json(case, model_class.config_class, MODELS[architecture], BASES[architecture], dtype_key=key)
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    model = model_class(read_config(folder))
    randomise(model, f"{architecture}/{case.name}")
    model.tie_weights()
    size = case.shard_size or "1GB"
    save_torch_state_dict(published(model, case), folder, max_shard_size=size, metadata={"format": "pt"})


def read_model(architecture: str, folder: Path) -> Any:
    """The stored folder as transformers reads it, computing in float32, one expert after another."""
    model, loading = getattr(transformers, MODELS[architecture]).from_pretrained(
        folder,
        config=read_config(folder),
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    unknown = [k for k in loading["unexpected_keys"] if f"layers.{model.config.num_hidden_layers}." not in k]
    if loading["missing_keys"] or loading["mismatched_keys"] or unknown:
        raise RuntimeError(f"{folder}: transformers reads the tensors otherwise: {loading}")
    model.generation_config = GenerationConfig()  # no end of sequence
    return model.eval()


def router_margin(router: Any, logits: torch.Tensor) -> torch.Tensor:
    """By how much each token's choice of experts is settled: the gap between the last chosen and the first left out,
    in units of the row's root mean square; of groups likewise, the smaller of the two."""

    def gap(scores: torch.Tensor, chosen: int) -> torch.Tensor:
        best = scores.topk(chosen + 1).values
        return (best[:, -2] - best[:, -1]) / scores.where(scores.isfinite(), 0).pow(2).mean(-1).sqrt()

    bias = getattr(router, "e_score_correction_bias", None)
    if bias is None:
        return gap(logits, router.top_k)
    scores = logits.sigmoid() + bias
    if router.topk_group == router.num_group:
        return gap(scores, router.top_k)
    groups = scores.view(len(scores), router.num_group, -1)
    best = groups.topk(2).values.sum(-1)
    open_groups = best >= best.topk(router.topk_group).values[:, -1:]
    inside = groups.masked_fill(~open_groups[..., None], -torch.inf).flatten(1)
    return torch.minimum(gap(best, router.topk_group), gap(inside, router.top_k))


def forward(model: Any, ids: list[int], past: Any = None) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Logits, the smallest router margin of each position, and the cache."""
    margins: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda router, _, out: margins.append(router_margin(router, out[0])))
        for module in model.modules()
        if type(module).__name__.lower().endswith("topkrouter")
    ]
    out = model(torch.tensor([ids]), past_key_values=past, use_cache=True)
    for hook in hooks:
        hook.remove()
    return out.logits[0], torch.stack(margins).amin(0), out.past_key_values


def is_clear(model: Any, row: torch.Tensor, past: Any, margin: float, router_margin: float) -> bool:
    """Whether the greedy answer after this row of logits meets no near tie; stops at the first."""
    for _ in range(NEW_TOKENS):
        best, token = row.topk(2)
        if best[0] - best[1] < 1.05 * margin * row.pow(2).mean().sqrt():
            return False
        logits, margins, past = forward(model, [int(token[0])], past)
        if margins[0] < router_margin:
            return False
        row = logits[0]
    return True


def rounding_errors(model: Any, ids: list[int], logits: torch.Tensor) -> torch.Tensor:
    """Relative L2 by which each row of logits moves where inputs of matrix products are rounded to bfloat16."""

    def rounded(module: Any, inputs: Any) -> Any:
        return inputs[0].bfloat16().float(), *inputs[1:]

    parts = [m for m in model.modules() if type(m).__name__.lower().endswith(("linear", "experts", "topkrouter"))]
    hooks = [module.register_forward_pre_hook(rounded) for module in parts]
    moved = forward(model, ids)[0]
    for hook in hooks:
        hook.remove()
    return (moved - logits).norm(dim=-1) / logits.norm(dim=-1)


def choose_prompt(model: Any, case: Case, length: int) -> dict[str, Any]:
    """A random prompt without near ties between experts or between the best tokens of its greedy answer.

    A token whose experts are nearly tied is drawn again, and the last ones are until the answer is clear too.
    """
    vocab, generator = model.config.vocab_size, seeded(f"{model.config.model_type}/{case.name}/{length}")
    rounds = case.dtype == "bfloat16"
    margin = SMALLEST_MARGIN_ROUNDED if rounds else SMALLEST_MARGIN
    enough = SMALLEST_ROUTER_MARGIN_ROUNDED if rounds else SMALLEST_ROUTER_MARGIN

    def draw(count: int) -> list[int]:
        return torch.randint(vocab, (count,), generator=generator).tolist()

    ids = draw(length)
    for _ in range(20000):
        logits, routers, past = forward(model, ids)
        unclear = routers < enough
        if rounds:
            unclear |= rounding_errors(model, ids, logits) > LARGEST_ERROR_ROUNDED
        if unclear.any():
            ids[int(unclear.int().argmax())] = draw(1)[0]
            continue
        if is_clear(model, logits[-1], past, margin, enough):
            tokens, margins = greedy(model, ids)
            whole, routers, _ = forward(model, ids + tokens)
            bears = not rounds or bool((rounding_errors(model, ids + tokens, whole) < 2 * LARGEST_ERROR_ROUNDED).all())
            if bears and min(margins) > margin and routers.min() > 0.9 * enough and len(set(tokens)) > 5:
                prompt = {"ids": ids, "greedy": tokens, "smallest_margin": min(margins), "margins": margins}
                check_cache(case, whole, prompt)
                return {**prompt, "smallest_router_margin": round(float(routers.min()), 4)}
        ids[-2:] = draw(min(2, length))
    raise RuntimeError(f"{case.name}: every prompt of {length} tokens meets a near tie")


def layer_outputs(model: Any, ids: list[int]) -> dict[str, torch.Tensor]:
    modules = {"embed_tokens": model.model.embed_tokens, "norm": model.model.norm}
    for i, layer in enumerate(model.model.layers):
        modules[f"layers.{i}"] = layer
        for name, part in ((name, getattr(layer, name)) for name in LISTENED if hasattr(layer, name)):
            modules[f"layers.{i}.{name}"] = part
            inside = [n for n in LISTENED_INSIDE if getattr(part, n, None) is not None]
            modules |= {f"layers.{i}.{name}.{n}": getattr(part, n) for n in inside}
    kept = outputs(model, modules, ids)
    for i, layer in enumerate(model.model.layers):
        if hasattr(layer.mlp, "gate"):
            states = kept[f"layers.{i}"] - kept[f"layers.{i}.mlp"]
            _, weights, chosen = layer.mlp.gate(layer.post_attention_layernorm(states))
            kept |= {f"layers.{i}.mlp.weights": weights, f"layers.{i}.mlp.chosen": chosen.int()}
    return kept | (delta_rule(model, ids) if model.config.model_type == "qwen3_next" else {})


def delta_rule(model: Any, ids: list[int]) -> dict[str, torch.Tensor]:
    """What passes through the first linear layer between its projections."""
    kept: dict[str, torch.Tensor] = {}
    at = f"layers.{model.config.layer_types.index('linear_attention')}.linear_attn."
    convolve, rule = modeling_qwen3_next.causal_conv1d_fn, modeling_qwen3_next.torch_chunk_gated_delta_rule

    def listen_to_conv(*args: Any, **fields: Any) -> torch.Tensor:
        out = convolve(*args, **fields)
        kept.setdefault(at + "conv", out[0].T.contiguous())
        return out

    def listen_to_rule(*args: Any, **fields: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        core, state = rule(*args, **{**fields, "output_final_state": True})
        for name, value in {"g": fields["g"], "beta": fields["beta"], "core": core, "state": state}.items():
            kept.setdefault(at + name, value[0].contiguous())
        return core, state

    modeling_qwen3_next.causal_conv1d_fn = listen_to_conv
    modeling_qwen3_next.torch_chunk_gated_delta_rule = listen_to_rule
    model(torch.tensor([ids]), use_cache=False)
    modeling_qwen3_next.causal_conv1d_fn = convolve
    modeling_qwen3_next.torch_chunk_gated_delta_rule = rule
    return kept


def write(case: Case, architecture: str, folder: Path) -> str:
    write_checkpoint(case, architecture, folder)
    model = read_model(architecture, folder)
    expected = folder / "expected"
    expected.mkdir()
    prompts = [choose_prompt(model, case, length) for length in case.prompts]
    logits = {f"logits.{i}": forward(model, prompt["ids"])[0].contiguous() for i, prompt in enumerate(prompts)}
    save_file(logits, expected / "logits.safetensors")
    if case.layers:
        chosen = max((p["ids"] for p in prompts if len(p["ids"]) <= 20), key=len)
        save_file(layer_outputs(model, chosen), expected / "layers.safetensors")
    write_prompts(case, prompts, expected)
    smallest = [min(p[key] for p in prompts) for key in ("smallest_margin", "smallest_router_margin")]
    return f"smallest margin {smallest[0]:.4f}, of routers {smallest[1]:.4f}"


if __name__ == "__main__":
    make(__doc__, CASES, write, threads=1)
