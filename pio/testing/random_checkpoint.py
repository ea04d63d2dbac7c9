"""Model folders with random weights of any shape: what tests and benchmarks run on where no checkpoint is at hand."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pio import dtypes
from pio.config.runtime import RuntimeConfig
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.loading.checkpoint import DEMO, resolve
from pio.loading.config_json import dtype as stored_dtype
from pio.loading.safetensors import write_safetensors
from pio.memory.budget import MemoryBudget
from pio.ops.quantized import PackedWeight
from pio.plugin import factory, registry
from pio.plugin.assembly import UNLIMITED
from pio.plugin.earlier import plugin_code
from pio.tensor import Tensor

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")

# Fields of config.json that name tokens around and for what is seen, and what the tokens are.
MARKS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
TEMPLATE = """{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.content is string %}{{- m.content }}{%- else %}{%- for part in m.content %}
{%- if part.type == 'text' %}{{- part.text }}
{%- elif part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}{%- endif %}
{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


class RandomTensors:
    """Makes each tensor when a model asks for it, and keeps it under its name.

    Vectors scatter around one, as norms do; matrices around zero, such that a layer keeps the size of its input.

    Args:
        dtype: Element type of every tensor.
        seed: The same seed, names and shapes give the same numbers.
    """

    def __init__(self, dtype: dtypes.DType, seed: int = 0) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._dtype = dtype
        self._seed = seed

    def __contains__(self, name: object) -> bool:
        """Return False: a tensor that a model takes only where there is one is never made."""
        return False

    def take(self, name: str, shape: tuple[int, ...], *, optional: bool = False, **_: Any) -> Any:
        """Return the tensor of that name, made on the first call; None for an optional one."""
        if optional:
            return None
        if name not in self.tensors:
            source = random.Random(f"{self._seed} {name} {shape}")
            count = 1
            for n in shape:
                count *= n
            centre, spread = (1.0, 0.2) if len(shape) == 1 else (0.0, 1.5 / shape[-1] ** 0.5)
            numbers = [source.gauss(centre, spread) for _ in range(count)]
            self.tensors[name] = Tensor.from_list(numbers, self._dtype).reshape(*shape)
        return self.tensors[name]

    def take_packed(self, name: str, shape: tuple[int, int]) -> None:
        """Return None: nothing is stored packed."""

    def convert(self, name: str, shape: tuple[int, int], pack: Callable[[Tensor], PackedWeight]) -> PackedWeight:
        """Return what ``pack`` makes of the matrix of that name."""
        return pack(self.take(name, shape))

    def same(self, one: str, other: str) -> bool:
        """Return whether two names are one tensor."""
        return one == other

    def let_go(self, name: str) -> None:
        """Keep the tensor: nothing is mapped."""

    def ignore(self, which: Callable[[str], bool] | Iterable[str], why: str = "") -> None:
        """Ignore nothing: only what a model takes exists."""


def write_random_checkpoint(
    folder: Path, config: Mapping[str, Any], *, plugin: str | None = None, seed: int = 0, tokenizer: bool = True
) -> Path:
    """Write a model folder with random weights.

    Args:
        folder: Where to; made if it is not there.
        config: The object of its config.json.
        plugin: The plugin whose model names the tensors; by default the one that fits the config best.
        seed: Of the weights.
        tokenizer: Put the demo model's tokenizer and chat template beside them; the vocabulary must hold its tokens.
            They know the marks of pictures that a config names too; their ids follow the tokenizer's.

    Returns:
        The folder.

    Raises:
        PioError: The config describes no model that the plugin can build.
    """
    raw = dict(config)
    manifest, _ = registry.choose(raw, plugin)
    made = factory.make(manifest)
    weights = RandomTensors(dtypes.dtype(stored_dtype(raw) or "float32"), seed)
    runtime = RuntimeConfig(prefill_chunk=1, max_batch_sequences=1)
    with plugin_code(type(made)):
        read = made.config_class.from_checkpoint(raw)
        made.build_model(read, Source(weights, Workspace(1)), runtime, MemoryBudget(UNLIMITED))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw, indent=2), "utf-8")
    write_safetensors(folder / "model.safetensors", weights.tensors, {"format": "pt"})
    if isinstance(raw.get("vision_config"), dict):
        _write_preprocessors(folder, raw["vision_config"])
    if tokenizer:
        for name in TOKENIZER:
            shutil.copyfile(resolve(DEMO) / name, folder / name)
        if any(field in raw for field in MARKS):
            _add_marks(folder, raw)
    return folder


def _write_preprocessors(folder: Path, vision: Mapping[str, Any]) -> None:
    """Write how pictures and videos are prepared: few tokens each, as a test has time for."""
    patch, merge = vision.get("patch_size", 16), vision.get("spatial_merge_size", 2)
    area = (patch * merge) ** 2
    common = {"patch_size": patch, "merge_size": merge, "temporal_patch_size": vision.get("temporal_patch_size", 2)}
    common |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
    for name, most in (("preprocessor_config.json", 24), ("video_preprocessor_config.json", 96)):
        size = {"shortest_edge": 2 * area, "longest_edge": most * area}
        (folder / name).write_text(json.dumps({"size": size, **common}), "utf-8")


def _add_marks(folder: Path, raw: Mapping[str, Any]) -> None:
    """Teach the tokenizer the marks of a config, and the chat template to write them."""
    tokenizer, config = (json.loads((folder / name).read_text("utf-8")) for name in TOKENIZER)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for token, field in sorted((raw[field], field) for field in MARKS):
        tokenizer["added_tokens"].append({"id": token, "content": MARKS[field], **flags, "special": True})
    config["chat_template"] = TEMPLATE
    for name, value in zip(TOKENIZER, (tokenizer, config), strict=True):
        (folder / name).write_text(json.dumps(value), "utf-8")
