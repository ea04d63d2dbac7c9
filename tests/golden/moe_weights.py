"""The random weights of the golden checkpoints with experts, by the names of published files."""

import math
from typing import Any

import torch
from oracle import DTYPES, Case, seeded


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
