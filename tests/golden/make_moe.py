"""Make the golden checkpoints with experts: tiny random models, with what transformers says they answer.

    python tests/golden/make_moe.py [OUT] [--only qwen3_next/heads1x]      (needs the extra `oracle`)

Each case of moe_cases.py becomes a Hugging Face folder with a folder `expected/` inside it; README.md beside this file
describes both.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import save_torch_state_dict
from moe_cases import BASES, CASES
from oracle import (
    DTYPES,
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

# between the last expert chosen and the first left out, see `router_margin`; the weights' type decides how far inputs
# of layers may be rounded
SMALLEST_ROUTER_MARGINS = {"float32": 0.01, "float16": 0.01, "bfloat16": 0.015}
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


def randomise(model: Any, name: str) -> None:
    """Weights large enough that every part of the model decides which token comes next."""
    generator = seeded(name)
    for key, weight in [*model.named_parameters(), *model.named_buffers()]:
        noise = torch.randn(weight.shape, generator=generator)
        if key.endswith("A_log"):  # decays from about 0.2 to 0.999 a step, in no order
            weight.data = torch.logspace(-3, 0.2, len(noise))[noise.argsort()].log()
        elif key.endswith("dt_bias"):
            weight.data = 0.5 * noise
        elif key.endswith("e_score_correction_bias"):
            weight.data = 0.3 * noise
            weight.data[1] = -1.5  # no token goes there
        elif "norm" in key and model.config.model_type == "qwen3_next" and "linear_attn" not in key:
            weight.data = noise.sign() * (0.25 + 0.4 * noise.abs())  # 1 is added to it
        elif "norm" in key:
            weight.data = 1 + 0.3 * noise
        elif key.endswith("bias"):
            weight.data = 0.4 * noise
        elif "embed_tokens" in key:
            weight.data = 0.25 * noise
        elif key.endswith("mlp.gate.weight"):
            weight.data = 2 * noise / math.sqrt(weight.shape[-1])
        elif not key.endswith("inv_freq"):
            large = 1.7 if "experts" in key else 1.3  # a share of an expert must show too
            weight.data = large * noise / math.sqrt(weight.shape[-1])


def published(model: Any, case: Case) -> dict[str, torch.Tensor]:
    """The tensors by the names of published files: experts one by one, and what the model does not use."""
    tensors: dict[str, torch.Tensor] = {}
    for key, value in model.state_dict().items():
        value = value if key.endswith("e_score_correction_bias") else value.to(DTYPES[case.dtype])
        experts, found, part = key.rpartition("experts.")
        if found and part == "gate_up_proj":
            for i, both in enumerate(value):
                gate, up = both.chunk(2)
                tensors[f"{experts}experts.{i}.gate_proj.weight"] = gate.clone()
                tensors[f"{experts}experts.{i}.up_proj.weight"] = up.clone()
        elif found and part == "down_proj":
            tensors |= {f"{experts}experts.{i}.down_proj.weight": one.clone() for i, one in enumerate(value)}
        elif key != "lm_head.weight" or case.stored_head or not model.config.tie_word_embeddings:
            tensors[key] = value.clone()
    return tensors | unused(tensors, model.config, case)


def unused(tensors: dict[str, torch.Tensor], config: Any, case: Case) -> dict[str, torch.Tensor]:
    """A multi-token-prediction layer as it is published: a layer like the last one, and what joins it to the model."""
    last = f"model.layers.{config.num_hidden_layers - 1}."
    generator, hidden = seeded(case.name + "/unused"), config.hidden_size
    if config.model_type == "qwen3_next" and case.published:
        layer, extra = "mtp.layers.0.", {"mtp.norm.weight": (hidden,), "mtp.fc.weight": (hidden, 2 * hidden)}
        extra |= {"mtp.pre_fc_norm_embedding.weight": (hidden,), "mtp.pre_fc_norm_hidden.weight": (hidden,)}
    elif getattr(config, "num_nextn_predict_layers", 0):
        layer = f"model.layers.{config.num_hidden_layers}."
        extra = {layer + "eh_proj.weight": (hidden, 2 * hidden), layer + "enorm.weight": (hidden,)}
        extra |= {layer + "hnorm.weight": (hidden,), layer + "shared_head.norm.weight": (hidden,)}
        extra |= {
            layer + name: (config.vocab_size, hidden) for name in ("embed_tokens.weight", "shared_head.head.weight")
        }
    else:
        return {}
    shapes = {layer + key.removeprefix(last): value.shape for key, value in tensors.items() if key.startswith(last)}
    drawn = {key: torch.randn(shape, generator=generator) for key, shape in sorted({**shapes, **extra}.items())}
    return {k: v if k.endswith("e_score_correction_bias") else v.to(DTYPES[case.dtype]) for k, v in drawn.items()}


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


def is_clear(model: Any, row: torch.Tensor, past: Any, router_margin: float) -> bool:
    """Whether the greedy answer after this row of logits meets no near tie; stops at the first."""
    for _ in range(NEW_TOKENS):
        best, token = row.topk(2)
        if best[0] - best[1] < 1.05 * SMALLEST_MARGIN * row.pow(2).mean().sqrt():
            return False
        logits, margins, past = forward(model, [int(token[0])], past)
        if margins[0] < router_margin:
            return False
        row = logits[0]
    return True


def choose_prompt(model: Any, case: Case, length: int) -> dict[str, Any]:
    """A random prompt without near ties between experts or between the best tokens of its greedy answer.

    A token whose experts are nearly tied is drawn again, and the last ones are until the answer is clear too.
    """
    vocab, generator = model.config.vocab_size, seeded(f"{model.config.model_type}/{case.name}/{length}")
    enough = SMALLEST_ROUTER_MARGINS[case.dtype]

    def draw(count: int) -> list[int]:
        return torch.randint(vocab, (count,), generator=generator).tolist()

    ids = draw(length)
    for _ in range(20000):
        logits, routers, past = forward(model, ids)
        unclear = (routers < enough).nonzero()
        if len(unclear):
            ids[int(unclear[0])] = draw(1)[0]
            continue
        if is_clear(model, logits[-1], past, enough):
            tokens, margins = greedy(model, ids)
            whole, routers, _ = forward(model, ids + tokens)
            if min(margins) > SMALLEST_MARGIN and routers.min() > 0.9 * enough and len(set(tokens)) > 5:
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
