"""Write what the real Qwen3-VL processor makes of pictures, conversations and videos.

    python tests/golden/make_qwen3_vl_processor.py CHECKPOINT [OUT]    (needs the extras `oracle` and `vision`)

CHECKPOINT is the published folder of Qwen3-VL-2B-Instruct without its weights; nothing of its files is stored. Written
are processor.json, positions.json and the folder files/ below OUT, tests/golden/qwen3_vl by default.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401 - before transformers
import PIL
import torch
import transformers
from vision_conversations import VIDEOS, conversation_facts, conversations, video_facts
from vision_files import write_files
from vision_processor import read_processor
from vision_sizes import file_pixels, formula_pixels, grids, lines, positions


def processor_json(checkpoint: Path, files: Path) -> str:
    processor = read_processor(checkpoint)
    versions = {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "pillow": PIL.__version__,
    }
    by_budget = grids(checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        drawn = list(formula_pixels(checkpoint, Path(scratch)))
    parts: dict[str, Any] = {
        "budgets": json.dumps({name: found["limits"] for name, found in by_budget.items()}),
        "grids": "{\n"
        + ",\n".join(f' "{name}": {lines(found["of"], "  ")}' for name, found in by_budget.items())
        + "\n }",
        "pictures": lines(drawn, "  "),
        "files": lines(list(file_pixels(checkpoint, files)), "  "),
        "conversations": lines([conversation_facts(processor, n, c) for n, c in conversations().items()], "  "),
        "videos": lines([video_facts(processor, *video) for video in VIDEOS], "  "),
    }
    body = ",\n".join(f' "{name}": {part}' for name, part in parts.items())
    return f'{{"made with": {json.dumps(versions)},\n{body}\n}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent / "qwen3_vl")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    files = arguments.out / "files"
    shutil.rmtree(files, ignore_errors=True)
    write_files(files)
    (arguments.out / "processor.json").write_text(processor_json(arguments.checkpoint, files), encoding="utf-8")
    found = positions()
    grid_lines = lines(found.pop("grids"), "  ")
    (arguments.out / "positions.json").write_text(f'{json.dumps(found)[:-1]},\n "grids": {grid_lines}}}\n')


if __name__ == "__main__":
    main()
