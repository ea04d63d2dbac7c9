"""Make the golden qwen3_vl checkpoints: tiny random models that see, with what transformers says they answer.

    python tests/golden/make_qwen3_vl.py [OUT]      (needs the extras `oracle` and `vision`)

OUT/qwen3_vl is tests/golden/qwen3_vl by default. README.md beside this file describes what is written.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401 - before transformers
import torch
import transformers
from oracle import DTYPES, SMALLEST_MARGIN, make, outputs, seeded
from safetensors.torch import save_file
from transformers import GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from vision_cases import CASES, TEXT, VISION, VisionCase
from vision_oracle import (
    build,
    greedy,
    logits,
    model_inputs,
    positions,
    special_tokens,
    tower_outputs,
    write_picture,
)
from vision_request import Inputs, Request
from vision_tokenizer import write_tokenizer

ARCHITECTURE = "qwen3_vl"


def marks(case: VisionCase) -> dict[str, int]:
    """The tokens of pictures and videos, near the end of the vocabulary and in the published order."""
    names = ("vision_start_token_id", "vision_end_token_id", "", "image_token_id", "video_token_id")
    first = case.text["vocab_size"] - 9
    return {name: first + i for i, name in enumerate(names) if name}


def config_json(case: VisionCase) -> dict[str, Any]:
    text = {**TEXT, **case.text, "tie_word_embeddings": case.tied}
    vision = {**VISION, **case.vision, "out_hidden_size": text["hidden_size"]}
    rope = {"mrope_interleaved": True, "mrope_section": list(case.section), "rope_type": "default"}
    common = {"architectures": ["Qwen3VLForConditionalGeneration"], "tie_word_embeddings": case.tied, **marks(case)}
    if case.published:
        nested = {"text_config": {**text, "rope_scaling": rope, "dtype": case.dtype}, "vision_config": vision}
        written = {**common, **nested, "model_type": ARCHITECTURE, "transformers_version": "4.57.0.dev0"}
        return {k: dict(sorted(v.items())) if isinstance(v, dict) else v for k, v in sorted(written.items())}
    theta = text.pop("rope_theta")
    nested = {"text_config": {**text, "rope_parameters": {**rope, "rope_theta": theta}}, "vision_config": vision}
    return {**Qwen3VLConfig(**common, **nested).to_diff_dict(), "dtype": case.dtype}


def write_preprocessors(case: VisionCase, folder: Path) -> None:
    vision = {**VISION, **case.vision}
    shared = {
        "patch_size": vision["patch_size"],
        "temporal_patch_size": vision["temporal_patch_size"],
        "merge_size": vision["spatial_merge_size"],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    size = dict(zip(("shortest_edge", "longest_edge"), case.budget, strict=True))
    written = {"size": size, **shared, "image_processor_type": "Qwen2VLImageProcessorFast"}
    if case.old_limits:
        del written["size"]
        written |= dict(zip(("min_pixels", "max_pixels"), case.budget, strict=True))
    if case.null_limits:
        written |= {"min_pixels": None, "max_pixels": None}
    (folder / "preprocessor_config.json").write_text(json.dumps(written, indent=2) + "\n")
    if case.video_budget:
        write_tokenizer(folder)
        size = dict(zip(("shortest_edge", "longest_edge"), case.video_budget, strict=True))
        written = {"size": size, **shared, "video_processor_type": "Qwen3VLVideoProcessor"}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(written, indent=2) + "\n")


def randomise(model: Qwen3VLForConditionalGeneration, name: str) -> None:
    """Weights large enough that every part of the model decides which token comes next."""
    generator = seeded(name)
    for key, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if key.endswith("bias"):
            weight.data = 0.4 * noise
        elif "norm" in key:
            weight.data = 1 + 0.3 * noise
        elif "embed_tokens" in key:
            # a head that is tied to large embeddings says the last token again and again
            weight.data = (0.25 if model.config.tie_word_embeddings else 1.0) * noise
        elif "pos_embed" in key:
            weight.data = 0.8 * noise
        else:
            weight.data = 1.3 * noise / math.sqrt(weight[0].numel())


def write_checkpoint(case: VisionCase, folder: Path) -> None:
    written = json.dumps(config_json(case), indent=2) + "\n"
    (folder / "config.json").write_text(written)
    write_preprocessors(case, folder)
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_pretrained(folder))
    randomise(model, case.name)
    model.tie_weights()
    model.to(DTYPES[case.dtype]).save_pretrained(folder, max_shard_size=case.shard_size or "1GB")
    (folder / "config.json").write_text(written)  # save_pretrained wrote its own
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "pictures").mkdir()
    for name, (width, height, seed) in case.pictures.items():
        write_picture(folder / "pictures" / name, width, height, seed)


def check_cache(model: Any, inputs: Inputs, tokens: list[int]) -> None:
    """Compare the logits of prompt and answer together, without a cache, with the answer."""
    rows = logits(model, inputs, tokens)[len(inputs.ids) - 1 : -1]
    rows[:, special_tokens(model.config)] = -torch.inf
    if rows.argmax(-1).tolist() != tokens:
        raise RuntimeError("generate with a cache and one forward without disagree")


def choose(model: Any, case: VisionCase, request: Request, folder: Path) -> tuple[Inputs, dict[str, Any]]:
    """The first random text around the pictures whose greedy answer hangs on no near tie."""
    for attempt in range(1000):
        inputs = build(folder, model.config, request, f"{case.name}/{request.name}/{attempt}")
        tokens, margins = greedy(model, inputs)
        if min(margins) > SMALLEST_MARGIN and len(set(tokens)) > (2 if case.tied else 5):
            check_cache(model, inputs, tokens)
            answer = {"greedy": tokens, "smallest_margin": min(margins), "margins": margins}
            return inputs, answer
    raise RuntimeError(f"{case.name}: every text of {request.name!r} meets a near tie")


def layer_outputs(model: Any, inputs: Inputs) -> dict[str, torch.Tensor]:
    """What the parts of the tower and the layers of the text model made of one request."""
    tower, text = model.model.visual, model.model.language_model
    modules: dict[str, Any] = {"visual.patch_embed": tower.patch_embed, "norm": text.norm}
    for i, block in enumerate(tower.blocks):
        modules |= {f"visual.blocks.{i}": block, f"visual.blocks.{i}.attn": block.attn}
    for i, layer in enumerate(text.layers):
        modules |= {f"layers.{i}": layer, f"layers.{i}.self_attn": layer.self_attn}
    return outputs(model, modules, inputs.ids, **model_inputs(model, inputs, inputs.ids))


def write_expected(case: VisionCase, folder: Path) -> float:
    """Ask transformers, which reads the stored folder and computes in float32. Returns the smallest margin."""
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    model.generation_config = GenerationConfig()  # no end of sequence
    expected = folder / "expected"
    expected.mkdir()
    told: list[dict[str, Any]] = []
    rows: dict[str, torch.Tensor] = {}
    tower: dict[str, torch.Tensor] = {}
    for i, request in enumerate(case.requests):
        inputs, answer = choose(model, case, request, folder)
        places, delta = positions(model, inputs)
        asked = {"name": request.name, "prompt": inputs.prompt, **inputs.facts, "ids": inputs.ids}
        told.append({**asked, "positions": places, "rope_delta": delta, **answer})
        rows[f"logits.{i}"] = logits(model, inputs)
        if request.tower:
            tower |= {f"{i}.{name}": value for name, value in tower_outputs(model, inputs).items()}
            if case.layers and not (expected / "layers.safetensors").exists():
                save_file(layer_outputs(model, inputs), expected / "layers.safetensors")
    save_file(rows, expected / "logits.safetensors")
    save_file(tower, expected / "tower.safetensors")
    versions = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    head = {"made with": versions, "dtype": case.dtype, "suppressed": special_tokens(model.config)}
    lines = ",\n  ".join(json.dumps(request) for request in told)
    (expected / "requests.json").write_text(f'{json.dumps(head)[:-1]},\n "requests": [\n  {lines}\n ]}}\n')
    return min(request["smallest_margin"] for request in told)


def write(case: Any, architecture: str, folder: Path) -> str:
    write_checkpoint(case, folder)
    return f"smallest margin {write_expected(case, folder):.4f}"


if __name__ == "__main__":
    make(__doc__, {ARCHITECTURE: list[Any](CASES)}, write)
