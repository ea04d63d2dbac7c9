"""What the makers of fixtures with pictures ask of transformers: pixels, ids, positions, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401 - before transformers
import numpy as np
import torch
from oracle import NEW_TOKENS, seeded
from PIL import Image
from transformers import GenerationConfig
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from vision_pictures import pixels


@dataclass(frozen=True)
class Clip:
    """A video of a request: its frames are pictures of the case."""

    frames: tuple[str, ...]
    fps: float


@dataclass(frozen=True)
class Request:
    """A prompt: numbers are runs of random text tokens, names are pictures, clips are videos."""

    name: str
    parts: tuple[int | str | Clip, ...]
    tower: bool = False  # store what the tower makes of its pictures too


@dataclass
class Inputs:
    """One request as the model takes it."""

    prompt: list[int]  # one token a picture or video
    ids: list[int]
    kwargs: dict[str, torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def write_picture(file: Path, width: int, height: int, seed: int) -> None:
    """Store a picture of the formula. A JPEG keeps all its colours, so that decoders agree about them."""
    image = Image.frombytes("RGB", (width, height), pixels(width, height, 3, seed))
    if file.suffix == ".jpg":
        image.save(file, quality=85, subsampling=0)
    else:
        image.save(file, optimize=True)


def kinds(ids: Sequence[int], config: Any) -> torch.Tensor:
    """0 for text, 1 for a token of a picture, 2 for one of a video: (1, tokens)."""
    of = {config.image_token_id: 1, config.video_token_id: 2}
    return torch.tensor([[of.get(token, 0) for token in ids]])


def image_inputs(folder: Path, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches (patches, 3 * 2 * patch * patch) and grids (pictures, 3), by Pillow, of pictures given by their paths."""
    processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    made = processor([load_image(str(folder / "pictures" / name)) for name in names], return_tensors="pt")
    return made["pixel_values"], made["image_grid_thw"]


def text_tokens(count: int, config: Any, generator: torch.Generator) -> list[int]:
    """Random tokens that mark no picture and no end."""
    first = min(special_tokens(config))
    return torch.randint(first, (count,), generator=generator).tolist()


def special_tokens(config: Any) -> list[int]:
    """Those that are never sampled."""
    return sorted(
        [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]
    )


def positions(model: Any, inputs: Inputs) -> tuple[list[list[int]], int]:
    """Of each token (time, row, column), and what to add to the index of a token of the answer."""
    grids = {k: v for k, v in inputs.kwargs.items() if k.endswith("_grid_thw")}
    if not grids:
        count = len(inputs.ids)
        return [list(range(count))] * 3, 0
    found, delta = model.model.get_rope_index(
        torch.tensor([inputs.ids]), mm_token_type_ids=kinds(inputs.ids, model.config), **grids
    )
    return found[:, 0].tolist(), int(delta)


def logits(model: Any, inputs: Inputs, answer: Sequence[int] = ()) -> torch.Tensor:
    """Of all positions of prompt and answer: float32 (tokens, vocabulary)."""
    ids = [*inputs.ids, *answer]
    kwargs = dict(inputs.kwargs)
    if kwargs:
        kwargs["mm_token_type_ids"] = kinds(ids, model.config)
    model.model.rope_deltas = None
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
    prompt, kwargs = torch.tensor([inputs.ids]), dict(inputs.kwargs)
    if kwargs:
        kwargs["mm_token_type_ids"] = kinds(inputs.ids, model.config)
    model.model.rope_deltas = None
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        generation_config=settings,
        output_logits=True,
        return_dict_in_generate=True,
        **kwargs,
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


def build(folder: Path, config: Any, request: Request, seed: str) -> Inputs:
    """Draw the text of a request, and expand the marks of its pictures as the processor does."""
    generator = seeded(seed)
    names = [part for part in request.parts if isinstance(part, str)]
    inputs = Inputs([], [], {})
    grids: list[list[int]] = []
    if names:
        values, found = image_inputs(folder, names)
        inputs.kwargs |= {"pixel_values": values, "image_grid_thw": found}
        grids = found.tolist()
        inputs.facts |= {"pictures": names, "image_grid_thw": list(grids)}
    merge = config.vision_config.spatial_merge_size
    for part in request.parts:
        if isinstance(part, int):
            drawn = text_tokens(part, config, generator)
            inputs.prompt += drawn
            inputs.ids += drawn
        elif isinstance(part, str):
            around = (config.vision_start_token_id, config.vision_end_token_id)
            _, height, width = grids.pop(0)
            count = height * width // merge**2
            inputs.prompt += [around[0], config.image_token_id, around[1]]
            inputs.ids += [around[0], *[config.image_token_id] * count, around[1]]
    return inputs


def as_bytes(pixel_values: torch.Tensor) -> np.ndarray[Any, Any]:
    """Undo mean 0.5 and deviation 0.5."""
    return ((pixel_values * 0.5 + 0.5) * 255).round().to(torch.uint8).numpy()
