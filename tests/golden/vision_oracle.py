"""What the maker of checkpoints that see asks of transformers: ids, positions, logits, answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401 - before transformers
import torch
from oracle import NEW_TOKENS, seeded
from PIL import Image
from transformers import GenerationConfig
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from vision_pictures import pixels
from vision_processor import ask, read_processor
from vision_request import Clip, Inputs, Request
from vision_tokenizer import VISION

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;!?()\n"


def write_picture(file: Path, width: int, height: int, seed: int) -> None:
    """Store a picture of the formula. A JPEG keeps all its colours, so that decoders agree about them."""
    image = Image.frombytes("RGB", (width, height), pixels(width, height, 3, seed))
    if file.suffix == ".jpg":
        image.save(file, quality=85, subsampling=0)
    else:
        image.save(file, optimize=True)


def special_tokens(config: Any) -> list[int]:
    """Those that are never sampled."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return sorted(getattr(config, name) for name in names)


def kinds(ids: Sequence[int], config: Any) -> torch.Tensor:
    """0 for text, 1 for a token of a picture, 2 for one of a video: (1, tokens)."""
    of = {config.image_token_id: 1, config.video_token_id: 2}
    return torch.tensor([[of.get(token, 0) for token in ids]])


def build(folder: Path, config: Any, request: Request, seed: str) -> Inputs:
    """Draw the text of a request, and expand the marks of its pictures as the processor does."""
    with_text = (folder / "tokenizer.json").exists()
    return build_text(folder, request, seed) if with_text else build_ids(folder, config, request, seed)


def build_ids(folder: Path, config: Any, request: Request, seed: str) -> Inputs:
    """Random tokens, and marks of pictures as the processor writes them. There is no tokenizer."""
    generator, inputs = seeded(seed), Inputs([], [])
    names = [part for part in request.parts if isinstance(part, str)]
    counts: list[int] = []
    if names:
        files = [load_image(str(folder / "pictures" / name)) for name in names]
        made = Qwen2VLImageProcessorPil.from_pretrained(folder)(files, return_tensors="pt")
        inputs.kwargs |= dict(made)
        inputs.facts |= {"pictures": names, "image_grid_thw": made["image_grid_thw"].tolist()}
        counts = (made["image_grid_thw"].prod(-1) // config.vision_config.spatial_merge_size**2).tolist()
    start, end = config.vision_start_token_id, config.vision_end_token_id
    for part in request.parts:
        if isinstance(part, int):
            drawn = torch.randint(start, (part,), generator=generator).tolist()
            inputs.prompt += drawn
            inputs.ids += drawn
        else:
            inputs.prompt += [start, config.image_token_id, end]
            inputs.ids += [start, *[config.image_token_id] * counts.pop(0), end]
    return inputs


def build_text(folder: Path, request: Request, seed: str) -> Inputs:
    """Random letters around the marks of pictures and videos, and what the real processor makes of them."""
    generator, text = seeded(seed), ""
    for part in request.parts:
        if isinstance(part, int):
            text += "".join(LETTERS[i] for i in torch.randint(len(LETTERS), (part,), generator=generator))
        else:
            text += VISION.format("video" if isinstance(part, Clip) else "image")
    names = [part for part in request.parts if isinstance(part, str)]
    clips = [part for part in request.parts if isinstance(part, Clip)]
    processor = read_processor(folder)
    made = ask(processor, text, folder / "pictures", names, clips)
    return Inputs(processor.tokenizer(text).input_ids, made["ids"], made["kwargs"], {"text": text, **made["facts"]})


def positions(model: Any, inputs: Inputs) -> tuple[list[list[int]], int]:
    """Of each token (time, row, column), and what to add to the index of a token of the answer."""
    grids = {k: v for k, v in inputs.kwargs.items() if k.endswith("_grid_thw")}
    if not grids:
        return [list(range(len(inputs.ids)))] * 3, 0
    found, delta = model.model.get_rope_index(
        torch.tensor([inputs.ids]), mm_token_type_ids=kinds(inputs.ids, model.config), **grids
    )
    return found[:, 0].tolist(), int(delta)


def model_inputs(model: Any, inputs: Inputs, ids: Sequence[int]) -> dict[str, Any]:
    """The arguments beside the ids, for a model that has forgotten the last request."""
    model.model.rope_deltas = None
    return {**inputs.kwargs, "mm_token_type_ids": kinds(ids, model.config)} if inputs.kwargs else {}


def logits(model: Any, inputs: Inputs, answer: Sequence[int] = ()) -> torch.Tensor:
    """Of all positions of prompt and answer: float32 (tokens, vocabulary)."""
    ids = [*inputs.ids, *answer]
    kwargs = model_inputs(model, inputs, ids)
    return model(torch.tensor([ids]), use_cache=False, **kwargs).logits[0].contiguous()


def greedy(model: Any, inputs: Inputs) -> tuple[list[int], list[float]]:
    """The tokens of `generate`, and the lead of each over the second best.

    Marks of pictures and videos are not in the race. Marks of their beginnings and ends are, though `generate` never
    takes them: a small or negative lead says that the answer would hang on that rule.
    """
    never = special_tokens(model.config)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=NEW_TOKENS, use_cache=True, pad_token_id=0, suppress_tokens=never
    )
    prompt = torch.tensor([inputs.ids])
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        generation_config=settings,
        output_logits=True,
        return_dict_in_generate=True,
        **model_inputs(model, inputs, inputs.ids),
    )
    tokens = out.sequences[0, len(inputs.ids) :]
    rows = torch.cat(out.logits).double()
    scale = rows.pow(2).mean(-1).sqrt()
    rows[:, [model.config.image_token_id, model.config.video_token_id]] = -torch.inf
    taken = rows.gather(1, tokens[:, None])[:, 0]
    others = rows.scatter(1, tokens[:, None], -torch.inf).max(-1).values
    return tokens.tolist(), [round(m, 4) for m in ((taken - others) / scale).tolist()]


def tower_outputs(model: Any, inputs: Inputs) -> dict[str, torch.Tensor]:
    """`image.merged`, `image.deepstack.0`, … and the same of videos: float32 (merged tokens, text width)."""
    kept: dict[str, torch.Tensor] = {}
    for kind, pixel_key in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if pixel_key in inputs.kwargs:
            out = model.model.visual(inputs.kwargs[pixel_key], grid_thw=inputs.kwargs[f"{kind}_grid_thw"])
            kept[f"{kind}.merged"] = out.pooler_output.clone()
            kept |= {f"{kind}.deepstack.{i}": value.clone() for i, value in enumerate(out.deepstack_features)}
    return kept
