"""What lies where a model folder was expected: another format, half a download, an adapter, the folder around it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from pio.errors import CheckpointError
from pio.loading.json_file import read_object
from pio.loading.model_file import find, first_bytes, listed, shown, shown_path

ADAPTER: Final = "adapter_config.json"
_CONFIG: Final = "config.json"
_MAX_ADAPTER_BYTES: Final = 1_000_000
_MAX_LOOKED_INTO: Final = 1000  # subfolders
_MAGIC: Final = b"GGUF"

_ORIGINAL = "which pio does not read: download the original model, the repo with config.json and *.safetensors"
_GGUF = f"GGUF, the format of llama.cpp, {_ORIGINAL}; quantize= makes it as small"
_PARTIAL = "a download that was not finished: run it again, to its end"
_PICKLE = (
    "pickled weights, which can run code and which pio never reads: download a revision with *.safetensors, or "
    "convert them with save_pretrained of transformers, on a machine you can spare"
)
# The first pattern that the name of some file matches says what a folder holds.
_FORMATS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), what)
    for pattern, what in (
        (r".*\.(incomplete|part|partial|crdownload|aria2|download)", _PARTIAL),
        (r".*\.(gguf|ggml|llamafile)|ggml-.*\.bin", _GGUF),
        (
            r"consolidated.*\.safetensors",
            f"a model in the layout of its maker (consolidated.safetensors, params.json), {_ORIGINAL}",
        ),
        (r"openvino_.*", f"an OpenVINO model, {_ORIGINAL}"),
        (r".*\.(onnx|onnx[._]data)", f"an ONNX model, {_ORIGINAL}"),
        (r"model_index\.json", "a pipeline of diffusers, which pio does not run: choose a language model"),
        (r".*\.(mlpackage|mlmodel|mlmodelc)", f"a Core ML model, {_ORIGINAL}"),
        (r".*\.(tflite|task|litertlm)", f"a LiteRT model, {_ORIGINAL}"),
        (r".*\.(engine|plan)", f"a TensorRT engine, {_ORIGINAL}"),
        (r".*\.(npz|mlx)", f"weights of MLX, {_ORIGINAL}"),
        (r".*\.h5|.*\.ckpt\.(index|meta|data.*)|saved_model\.pb", f"TensorFlow weights, {_ORIGINAL}"),
        (r".*\.msgpack(\..*)?", f"Flax weights, {_ORIGINAL}"),
        (r".*\.(bin|pt|pth|ckpt|pkl|pickle)(\.index\.json)?", _PICKLE),
        (r".*\.(zip|tar|tgz|tar\.\w+|7z|rar)", "an archive: unpack it, and give the folder that holds config.json"),
    )
)


def explain_file(path: Path) -> str:
    """Return what a file is that was given in place of a folder, and what to give.

    Raises:
        CheckpointError: It cannot be read.
    """
    magic = os.path.isfile(path) and first_bytes(path, len(_MAGIC)) == _MAGIC  # some have a digest for a name
    what = _GGUF if magic else _format([path.name])
    if what is not None:
        return f"{path} is {what}"
    around = shown_path(str(path.parent))
    return f"{path} is a file; give the folder that holds it, config.json and tokenizer.json: {around}"


def explain_folder(folder: Path, missing: str) -> str:
    """Return what a folder is that lacks its configuration or its weights, and what to do.

    Args:
        folder: The folder.
        missing: Name of the file that it should hold.

    Raises:
        CheckpointError: It cannot be read.
    """
    names, lacks = listed(folder), f"{folder} holds no {missing}"
    if not names:
        return f"{folder} is empty; download the model into it, or correct the path"
    if ADAPTER in names:
        return f"{lacks}, for it is {_adapter(folder)}"
    other = next((name for name in names if name.lower() == missing), None)
    if other is not None:
        return f"{lacks}, but {shown(other)}; correct the name, in which capitals count"
    started = folder / ".cache" / "huggingface" / "download"
    whole = any(name.endswith(".safetensors") and _format([name]) is None for name in names)
    tell = listed(started) if os.path.isdir(started) else []
    what = _format(tell if whole else [*names, *tell]) or _further_down(folder, names)
    if what is not None:
        return f"{lacks}; it holds {what}"
    return (
        f"{lacks}; give the folder that Hugging Face shows for the model, with config.json beside *.safetensors, or "
        "download the model again"
    )


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder with weights that an adapter would change.

    transformers, where peft is installed, gives such a folder's answers through the adapter, even through another base
    that the adapter names; without it they would be another model's.

    Raises:
        CheckpointError: There is one.
    """
    if find(folder, ADAPTER) is not None:
        raise CheckpointError(
            f"{folder} holds {ADAPTER} beside the weights: it is {_adapter(folder)}. If these weights are merged "
            f"already, remove {ADAPTER} and adapter_model.*"
        )


def _adapter(folder: Path) -> str:
    path = find(folder, ADAPTER)
    base = read_object(path, max_bytes=_MAX_ADAPTER_BYTES).get("base_model_name_or_path") if path else None
    name = shown(base) if isinstance(base, str) and base else "another model"
    return (
        f"an adapter (LoRA or another of PEFT) for {name}, and pio runs whole models: merge it into its base with "
        "merge_and_unload() of peft, save that with save_pretrained(), and give the new folder"
    )


def _format(names: list[str]) -> str | None:
    """Return what files of these names are and what to do instead, or None where the names tell nothing."""
    return next((what for pattern, what in _FORMATS if any(map(pattern.fullmatch, names))), None)


def _further_down(folder: Path, names: list[str]) -> str | None:
    """Return which folders below this one are models, and what to do, or None where there is none."""
    if any(name.startswith("models--") for name in names):
        return "the Hugging Face cache, in which models have names: give a repo id such as 'org/name'"
    inside, within = folder, ""
    if folder.name.startswith("models--") and "snapshots" in names:
        inside, within = folder / "snapshots", " of the Hugging Face cache"
        names = listed(inside)
    models = [name for name in names[:_MAX_LOOKED_INTO] if os.path.isfile(inside / name / _CONFIG)]
    if not models:
        return None
    if len(models) == 1:
        return f"a model one folder further down{within}: give {inside / models[0]}"
    return f"{len(models)} models{within}: give one of them, such as {inside / models[-1]}"
