"""What the real processor makes of sizes, modes and files of pictures, and of position tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401 - before transformers
import torch
from PIL import Image
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from vision_pictures import MODES, picture, places, suffix, table_value

RUN = 1 << 21  # pixels of a resized picture that the whole processor is run for; above it only its smart_resize
BUDGETS: dict[str, dict[str, int]] = {
    "published": {},
    "small": {"shortest_edge": 4096, "longest_edge": 16384},
    "one": {"shortest_edge": 1024, "longest_edge": 1024},
    "narrow": {"shortest_edge": 50000, "longest_edge": 60000},
}
SIZES = (  # width, height
    *((1, 1), (1, 2), (2, 1), (3, 1), (1, 64), (1, 199), (1, 200), (1, 201), (200, 1), (201, 1), (3000, 1), (1, 3000)),
    *((2, 400), (2, 401), (400, 2), (7, 1400), (7, 1401), (1400, 7), (10, 2000), (10, 2001), (2000, 10)),
    *((16, 16), (28, 28), (31, 31), (32, 32), (33, 31), (31, 33), (48, 48), (64, 64), (100, 75), (75, 100), (79, 81)),
    *((112, 112), (127, 129), (255, 257), (256, 256), (224, 224), (336, 336), (448, 448), (512, 512), (640, 480)),
    *((480, 640), (800, 600), (1024, 484), (484, 1024), (1024, 1024), (1280, 720), (1920, 1080), (1080, 1920)),
    *((4096, 512), (512, 4096), (2048, 2048), (2560, 1792), (1792, 2560), (4096, 4096), (4097, 4097), (5000, 3000)),
    *((3000, 5000), (12000, 9000), (20000, 100), (20000, 101), (16384, 1024), (272, 240), (240, 272), (304, 208)),
    *((528, 496), (1008, 1040), (48, 16), (80, 16), (16, 80), (112, 48), (3, 500), (600, 5), (65, 65), (17, 15)),
)
PIXEL_SIZES = (
    *((1, 1), (2, 3), (5, 1), (16, 16), (31, 33), (32, 32), (33, 31), (60, 4), (4, 60), (64, 64)),
    *((75, 53), (97, 20), (20, 97), (100, 100), (128, 96), (141, 67), (67, 141), (150, 40), (31, 160), (180, 90)),
)
MODE_SIZES = ((1, 1), (16, 16), (33, 31), (60, 4), (75, 53), (97, 20), (128, 96), (31, 160))
GRIDS = ((112, 160), (160, 112), (48, 48), (2, 2), (2, 64), (64, 2), (34, 30), (16, 16), (94, 96), (256, 256))


def processor_for(folder: Path, budget: str) -> Qwen2VLImageProcessorPil:
    more: dict[str, Any] = {"size": BUDGETS[budget]} if BUDGETS[budget] else {}
    return Qwen2VLImageProcessorPil.from_pretrained(folder, **more)


def grid_or_error(processor: Any, width: int, height: int) -> list[int] | str:
    """[rows, columns] in patches, or what the processor says."""
    size, patch = processor.size, processor.patch_size
    try:
        found = smart_resize(height, width, patch * processor.merge_size, size["shortest_edge"], size["longest_edge"])
    except ValueError as error:
        return str(error)
    if found[0] * found[1] <= RUN and width * height <= RUN:
        made = processor([Image.new("RGB", (width, height))], return_tensors="pt")["image_grid_thw"].tolist()
        assert made == [[1, found[0] // patch, found[1] // patch]], (width, height)
    return [side // patch for side in found]


def grids(folder: Path) -> dict[str, Any]:
    """By budget, then by [width, height]."""
    by_budget: dict[str, Any] = {}
    for budget in BUDGETS:
        processor = processor_for(folder, budget)
        found = [[[w, h], grid_or_error(processor, w, h)] for w, h in SIZES]
        by_budget[budget] = {"limits": [processor.size["shortest_edge"], processor.size["longest_edge"]], "of": found}
    return by_budget


def pixel_facts(processor: Any, image: Any) -> dict[str, Any]:
    """The grid, the mean of all levels, and those at fixed places: levels are 0 to 255, before normalising."""
    made = processor([image], return_tensors="pt")
    levels = (made["pixel_values"].double() * 0.5 + 0.5) * 255
    flat = levels.round().to(torch.int64).flatten()
    assert (levels.flatten() - flat).abs().max() < 1e-3
    chosen = flat[places(len(flat))].tolist()
    return {"grid": made["image_grid_thw"][0, 1:].tolist(), "mean": round(float(flat.double().mean()), 3), "at": chosen}


def formula_pixels(folder: Path, scratch: Path) -> Iterator[dict[str, Any]]:
    """Pictures of the formula, given by path: RGB of all sizes, and the other modes of some."""
    jobs = [("RGB", size, budget) for size in PIXEL_SIZES for budget in ("published", "small")]
    jobs += [(mode, size, "small") for mode in MODES[1:] for size in MODE_SIZES]
    jobs += [(mode, (33, 31), "published") for mode in MODES[1:]]
    for i, (mode, (width, height), budget) in enumerate(jobs):
        seed = i % 11
        file = scratch / f"picture{suffix(mode)}"
        picture(mode, width, height, seed).save(file)
        asked = {"mode": mode, "size": [width, height], "seed": seed, "budget": budget}
        yield asked | pixel_facts(processor_for(folder, budget), load_image(str(file)))


def file_pixels(folder: Path, files: Path) -> Iterator[dict[str, Any]]:
    """Stored files, given by path; `white_…` is what a PIL object gives, whose transparency is put on white."""
    for file in sorted(files.iterdir()):
        with Image.open(file) as opened:
            opened.load()
            asked = {"file": file.name, "mode": opened.mode, "size": list(opened.size), "budget": "small"}
            facts = asked | pixel_facts(processor_for(folder, "small"), load_image(str(file)))
            if opened.has_transparency_data:
                on_white = pixel_facts(processor_for(folder, "small"), opened)
                facts |= {"white_mean": on_white["mean"], "white_at": on_white["at"]}
            yield facts


def position_rows(height: int, width: int) -> list[int]:
    """Which patches of a grid are stored: the first and last ones, and others spread over it."""
    count = height * width
    return sorted({0, 1, 2, 3, count - 1, count - 2, *((i * 977 + 5) % count for i in range(24))})


@torch.no_grad()
def positions() -> dict[str, Any]:
    """What a tower without blocks, whose patches give nothing, makes of a known table: the interpolated positions."""
    config = Qwen3VLVisionConfig(
        depth=0, hidden_size=8, num_heads=2, intermediate_size=8, out_hidden_size=8, patch_size=2,
        num_position_embeddings=48 * 48, deepstack_visual_indexes=[],
    )  # fmt: skip
    model = Qwen3VLVisionModel(config)
    model.patch_embed.proj.weight.zero_()
    model.patch_embed.proj.bias.zero_()
    table = [[table_value(i // 48, i % 48, c) for c in range(8)] for i in range(48 * 48)]
    model.pos_embed.weight.copy_(torch.tensor(table))
    found: list[dict[str, Any]] = []
    for height, width in GRIDS:
        patches = torch.zeros(height * width, 3 * 2 * 2 * 2)
        out = model(patches, grid_thw=torch.tensor([[1, height, width]])).last_hidden_state
        rows = position_rows(height, width)
        found.append({"grid": [height, width], "patches": rows, "values": rounded(out[rows].tolist())})
    return {"side": 48, "merge": 2, "grids": found}


def rounded(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(value, 5) for value in row] for row in rows]


def lines(entries: Sequence[Any], indent: str) -> str:
    """One entry a line."""
    return "[\n" + ",\n".join(indent + json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n" + indent + "]"
