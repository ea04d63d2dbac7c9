"""``pio.quantize``: from a model folder to one whose matrices are packed, which is mapped as it is."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from pio.config.runtime import RuntimeConfig
from pio.device import Device
from pio.dtypes import uint8
from pio.errors import CheckpointError, ConfigError
from pio.layers.outline import Outline
from pio.layers.quantization import Quantization
from pio.loading.checkpoint import Checkpoint, resolve
from pio.loading.file_error import unwritable
from pio.loading.hub_cache import short_name
from pio.loading.model_file import find, open_regular, shown_path
from pio.loading.quantization_config import FIELD, Format, Policy, StoredQuantization
from pio.loading.safetensors_writer import SafetensorsWriter, TensorHeader, aligned_order
from pio.loading.shard_index import INDEX, SINGLE
from pio.loading.unfinished import PREFIX, unfinished_folder
from pio.loading.weights import Weights
from pio.memory.refusal import memory_errors, memory_refused
from pio.memory.sizes import format_bytes
from pio.ops.quantized import packed_shape
from pio.plugin import factory, registry
from pio.plugin.assembly import outline
from pio.plugin.earlier import plugin_code
from pio.progress.progress import Progress
from pio.system import HERE
from pio.tensor import Tensor
from pio.version import __version__

SHARD = 4_000_000_000  # bytes of a file

# What a folder holds beside config and weights, and what models and their users need.
COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "LICENSE",
)


def quantize(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    format: str = "int4",
    policy: str = "balanced",
    plugin: str | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> Path:
    """Write a quantized copy of a model folder, which loads by mapping and gives the bits of ``pio.load(quantize=)``.

    One tensor at a time is in memory. The folder appears when it is complete, and not at all on an error or Ctrl-C. A
    process that is killed leaves a hidden folder beside it, which the next one to write there removes.

    Args:
        src: As ``pio.load`` takes it.
        dst: The new folder; there may be an empty one.
        format: int8, int4, or int4_zero_point, all in groups of 32 weights.
        policy: balanced keeps the embedding and the output head in int8; uniform makes no difference.
        plugin: Name of the plugin whose model it is; by default the one that fits best.
        threads: Over how many threads to split; all by default.
        progress: As in ``RuntimeConfig``.

    Returns:
        The new folder.

    Raises:
        ConfigError: There is no such format or policy, ``dst`` is in use, or the model is quantized already.
        CheckpointError: There is no such model, its folder is damaged, or the new one cannot be written.
        UnsupportedModelError: No plugin runs it.
        OutOfMemoryError: The system refuses the memory for a tensor.
    """
    for name, value, known in (("format", format, get_args(Format)), ("policy", policy, get_args(Policy))):
        if value not in known:
            raise ConfigError(f"{name} is {value!r:.80}, expected {', '.join(known[:-1])} or {known[-1]}")
    RuntimeConfig.from_options(threads=threads, progress=progress)  # checks them
    stored = StoredQuantization(cast("Format", format), cast("Policy", policy))
    folder, target = resolve(src), _free(dst)
    doing = f"quantizing {short_name(folder)}"
    with memory_errors(doing), Progress(progress, doing) as shown:
        model = _Model.open(folder, stored, plugin)
        try:
            with unfinished_folder(target.parent) as unfinished:
                _check_room(model, target.parent)
                _write_weights(model, unfinished, Device("cpu", threads), shown)
                _write_config(model.checkpoint, stored, unfinished)
                HERE.sync_folder(unfinished)
                HERE.move_folder(unfinished, target)  # over an empty folder, but over no other
                HERE.sync_folder(target.parent)
        except OSError as error:
            if memory_refused(error, doing):
                raise
            raise unwritable(target, error) from error
    return target


def _free(dst: str | os.PathLike[str]) -> Path:
    """Return where the new folder will be, without links in its path."""
    try:
        given = os.path.expanduser(os.fsdecode(dst))
    except TypeError:  # such as None, for a variable that nobody has set
        raise ConfigError(f"dst: found {type(dst).__name__}, expected the path of a new folder") from None
    if "\0" in given:
        raise ConfigError(f"{shown_path(given)} can be no folder: no path holds \\0; correct it")
    try:
        problem = HERE.path_problem(given)
        target = Path(given if problem else HERE.real_path(given))
        for folder in (target, target.parent / f"{PREFIX}0123456789ab"):  # and where it is written
            problem = problem or HERE.path_problem(folder / "model-00001-of-00002.safetensors")
        if problem is not None:
            raise ConfigError(f"{shown_path(given)} can be no folder: {problem}")
        if target.is_dir() and not any(target.iterdir()):
            return target
        if os.path.lexists(target):
            raise ConfigError(f"{target} is there already; choose a new folder or an empty one, or remove it")
        if not target.parent.is_dir():
            raise ConfigError(
                f"there is no folder {target.parent} to put {target.name} in; make it, or correct the path"
            )
    except OSError as error:
        raise unwritable(Path(given), error) from error
    return target


@dataclass(frozen=True, slots=True)
class _Model:
    """The original, and what becomes of it.

    Attributes:
        checkpoint: Its folder.
        weights: Its tensors.
        quantization: What becomes of matrices.
        found: The tensors that the model takes.
        files: The new ones, by file.
    """

    checkpoint: Checkpoint
    weights: Weights
    quantization: Quantization
    found: Outline
    files: dict[str, list[TensorHeader]]

    @classmethod
    def open(cls, folder: Path, stored: StoredQuantization, plugin: str | None) -> _Model:
        """Check everything that can be checked before a tensor is read."""
        checkpoint = Checkpoint(folder)
        manifest, _ = registry.choose(checkpoint.config, plugin)
        made = factory.make(manifest)
        with plugin_code(type(made)):
            config = made.config_class.from_checkpoint(checkpoint.config)
        if config.quantization is not None:
            raise ConfigError(
                f"{folder} is quantized already, as {config.quantization.format}; give the original folder"
            )
        quantization = Quantization.of(stored.format, stored.policy)
        with plugin_code(type(made)):
            weights = made.open_weights(checkpoint)
            found = outline(made.build_model, config, weights)
        packed: list[TensorHeader] = []
        for name, (shape, role) in found.matrices.items():
            weights.take(name, shape)  # checks it
            packed.append(TensorHeader(name, uint8, packed_shape(shape, quantization.forms[role])))
        weights.finish()
        others = [(name, weights.take(name, weights.shape(name))) for name in found.others]
        headers = [*packed, *(TensorHeader(name, tensor.dtype, tensor.shape) for name, tensor in others)]
        return cls(checkpoint, weights, quantization, found, _files(aligned_order(headers)))

    def tensor(self, name: str, device: Device) -> Tensor:
        """Return a tensor as it is to be stored, packed on that device, in memory of its own or mapped."""
        original = self.weights.take(name, self.weights.shape(name))
        if name not in self.found.matrices:
            self.weights.check_finite(name)
            return original
        _, role = self.found.matrices[name]
        return self.quantization.pack(name, original.to(device), self.quantization.forms[role]).data

    @property
    def nbytes(self) -> int:
        """Bytes of the new tensors."""
        return sum(tensor.nbytes for tensors in self.files.values() for tensor in tensors)


def _files(tensors: list[TensorHeader]) -> dict[str, list[TensorHeader]]:
    """Share tensors out between as few files as there must be, in their order."""
    shards: list[list[TensorHeader]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(t.nbytes for t in shards[-1]) + tensor.nbytes > SHARD:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    count = len(shards)
    return {f"model-{i:05}-of-{count:05}.safetensors": shard for i, shard in enumerate(shards, 1)}


def _check_room(model: _Model, parent: Path) -> None:
    free = shutil.disk_usage(parent).free
    if model.nbytes > free:
        raise CheckpointError(
            f"the quantized weights take {format_bytes(model.nbytes)} and the disk of {parent} has "
            f"{format_bytes(free)} free; free disk space or choose another folder"
        )


def _write_weights(model: _Model, folder: Path, device: Device, shown: Progress) -> None:
    done, total = 0, max(1, model.nbytes)
    for file, tensors in model.files.items():
        with SafetensorsWriter(folder / file, tensors, {"quantized_by": f"pio {__version__}"}) as writer:
            for name, *_ in tensors:
                shown.say(f"quantizing {short_name(model.checkpoint.path)}", f": {name}", done=done, total=total)
                tensor = model.tensor(name, device)
                writer.write(tensor)
                model.weights.let_go(name)
                done += tensor.nbytes
    if len(model.files) > 1:
        weight_map = {tensor.name: file for file, tensors in model.files.items() for tensor in tensors}
        _write_json(folder / INDEX, {"metadata": {"total_size": model.nbytes}, "weight_map": weight_map})


def _write_config(checkpoint: Checkpoint, stored: StoredQuantization, folder: Path) -> None:
    """Write config.json and copy the other files; links become files."""
    _write_json(folder / "config.json", {**checkpoint.config, FIELD: stored.as_dict()})
    for name in COPIED:
        path = find(checkpoint.path, name)
        if path is not None:
            descriptor, _ = open_regular(path)
            with open(descriptor, "rb") as original, open(folder / name, "xb") as copy:
                shutil.copyfileobj(original, copy)
                _sync(copy)


def _write_json(path: Path, value: Any) -> None:
    with open(path, "xb") as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=True) + "\n").encode())
        _sync(file)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
