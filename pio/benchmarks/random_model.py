"""A model with random weights of a config's shapes: speed and compilation need no download."""

from __future__ import annotations

import ctypes
import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pio import dtypes
from pio.dtypes import DType
from pio.errors import CheckpointError, ConfigError
from pio.layers.rehearsal import blank
from pio.loading import config_json
from pio.loading.checkpoint import MAX_CONFIG_BYTES, Checkpoint
from pio.loading.json_file import read_object
from pio.memory.fit import require_free
from pio.memory.storage import Storage
from pio.ops.quantized import PackedWeight
from pio.ops.reduce import first_non_finite
from pio.plugin import TextModelPlugin, registry
from pio.plugin.manifest import import_object
from pio.tensor import Tensor, row_major

_CHUNK = 64 << 20  # bytes allocated at once
_BLOCK = (1 << 16) + 17  # random numbers before they repeat, a length that no row has


class RandomWeights:
    """Tensors of whatever shape a model asks for, in huge pages, as those of a mapped file are where the system can.

    It stands in for ``pio.loading.weights.Weights``.
    """

    def __init__(self, dtype: DType, seed: int = 0) -> None:
        """Make nothing yet.

        Args:
            dtype: Of every tensor.
            seed: The same one gives the same weights.
        """
        self._dtype, self._seed = dtype, seed
        self._random = random.Random(seed)
        self._blocks: dict[int, Tensor] = {}
        self._tensors: dict[str, Tensor] = {}
        self._packed: dict[tuple[int, int], PackedWeight] = {}
        self._free = Storage(0, 0, None)
        self.rehearsing = False  # whether a model is built only to see what it will take

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that were made."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    @property
    def matrices(self) -> int:
        """Number of the matrices, which nobody knows before they are asked for."""
        return 0

    @property
    def used(self) -> frozenset[str]:
        """Names of the tensors that were made."""
        return frozenset(self._tensors)

    def digest(self, notes: Path, check: Callable[[], object] = lambda: None) -> str:
        """Return what tells these weights from others that a model of the same config has."""
        return f"random {self._dtype.name} {self._seed}"

    def take(self, name: str, shape: tuple[int, ...], *, optional: bool = False, **_: Any) -> Tensor | None:
        """Return the tensor of that name, made when first asked for; an optional one is never there.

        Matrices keep the size of what they multiply, and vectors, which scale, are all ones.
        """
        if optional:
            return None
        if self.rehearsing:
            return blank(shape, self._dtype)
        if name not in self._tensors:
            self._tensors[name] = self._made(shape)
        return self._tensors[name]

    def take_packed(self, name: str, shape: tuple[int, int]) -> None:
        """Return None: nothing is stored packed."""

    def convert(self, name: str, shape: tuple[int, int], pack: Callable[[Tensor], PackedWeight]) -> PackedWeight:
        """Return a packed matrix; those of one shape hold the same numbers, so that only the first is packed."""
        first = self._packed.get(shape)
        if first is None:
            made = pack(self._made(shape))
            self._packed[shape] = made
            return made
        if first.data.device.stream is not None:
            return PackedWeight(first.data.clone(), first.form.name, shape)
        storage = self._reserve(first.nbytes)
        ctypes.memmove(storage.address, first.data.address, first.nbytes)
        data = Tensor(storage, storage.address, first.data.dtype, first.data.shape, row_major(first.data.shape))
        return PackedWeight(data, first.form.name, shape)

    def same(self, one: str, other: str) -> bool:
        """Return whether two names are one tensor."""
        return one == other

    def let_go(self, name: str) -> None:
        """Forget a tensor that was converted."""
        self._tensors.pop(name, None)

    def ignore(self, which: Callable[[str], bool] | Iterable[str], why: str = "") -> None:
        """Do nothing: no tensor is left over."""

    def finish(self) -> None:
        """Let go of what only making tensors needs."""
        self._blocks.clear()
        self._packed.clear()

    def check_finite(self, name: str) -> None:
        """Raise a CheckpointError if a tensor holds NaN or an infinity."""
        if first_non_finite(self._tensors[name]) is not None:
            raise CheckpointError(f"random tensor {name} holds NaN or infinity")

    def _block(self, width: int) -> Tensor:
        if width not in self._blocks:
            gauss, scale = self._random.gauss, 1 / math.sqrt(width)
            self._blocks[width] = Tensor.from_list([gauss(0.0, scale) for _ in range(_BLOCK)]).astype(self._dtype)
        return self._blocks[width]

    def _made(self, shape: tuple[int, ...]) -> Tensor:
        storage = self._reserve(math.prod(shape) * self._dtype.itemsize)
        tensor = Tensor(storage, storage.address, self._dtype, shape, row_major(shape))
        if len(shape) == 1:
            return tensor.fill_(1.0)
        repeat(self._block(shape[-1]), tensor)
        return tensor

    def _reserve(self, nbytes: int) -> Storage:
        nbytes = -(-nbytes // 64) * 64
        if nbytes > self._free.nbytes:
            self._free = Storage.allocate(max(nbytes, _CHUNK))
        at, owner = self._free.address, self._free.owner
        self._free = Storage(at + nbytes, self._free.nbytes - nbytes, owner)
        return Storage(at, nbytes, owner)


def repeat(block: Tensor, out: Tensor) -> None:
    """Fill a tensor with a block again and again."""
    done = min(block.nbytes, out.nbytes)
    ctypes.memmove(out.address, block.address, done)
    while 0 < done < out.nbytes:
        step = min(done, out.nbytes - done)
        ctypes.memmove(out.address + done, out.address, step)
        done += step


def read_config(path: Path) -> dict[str, Any]:
    """Return the object in a config.json, or in that of a folder.

    Raises:
        CheckpointError: There is none, or it is no JSON object.
    """
    return Checkpoint(path).config if path.is_dir() else read_object(path, max_bytes=MAX_CONFIG_BYTES)


def cut(raw: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return a config with only its first layers; all else, and so every shape, stays.

    Of a model that sees, these are the decoder's, and its tower stays; where it adds to more of the first layers than
    are left, it adds to fewer.

    Raises:
        ConfigError: It has fewer.
    """
    if isinstance(raw.get("text_config"), dict):
        vision: dict[str, Any] = raw["vision_config"] if isinstance(raw.get("vision_config"), dict) else {}
        if isinstance(vision.get("deepstack_visual_indexes"), list):
            vision = {**vision, "deepstack_visual_indexes": vision["deepstack_visual_indexes"][: layers - 1]}
        return {**raw, "text_config": cut(raw["text_config"], layers), "vision_config": vision}
    found = raw.get("num_hidden_layers")
    if not isinstance(found, int) or not 1 <= layers <= found:
        raise ConfigError(f"--layers {layers}: the config has {found} layers, expected 1 to as many")
    fewer = {**raw, "num_hidden_layers": layers}
    for name in ("layer_types", "mlp_layer_types"):
        if isinstance(raw.get(name), list):
            fewer[name] = raw[name][:layers]
    if isinstance(raw.get("mlp_only_layers"), list):
        fewer["mlp_only_layers"] = [i for i in raw["mlp_only_layers"] if i < layers]
    return fewer


def preprocessor_config(vision: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preprocessor_config.json for a tower, with the sizes of pictures that published ones allow."""
    return {
        "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
        "patch_size": vision.get("patch_size", 16),
        "temporal_patch_size": vision.get("temporal_patch_size", 2),
        "merge_size": vision.get("spatial_merge_size", 2),
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


@contextmanager
def random_model(
    raw: dict[str, Any],
    *,
    plugin: str | None = None,
    dtype: str | None = None,
    beside: Iterable[Path] = (),
    **options: Any,
) -> Generator[TextModelPlugin]:
    """Load a model with random weights; everything but the weights' origin is as ``pio.load`` does it.

    Args:
        raw: What config.json holds.
        plugin: Name of the plugin; the one that fits best by default.
        dtype: Element type of the weights; by default the one that the config names, else bfloat16.
        beside: Other files of the model's folder, such as those of a tokenizer.
        **options: Fields of ``RuntimeConfig``.

    Raises:
        OutOfMemoryError: The machine has no room for the weights.
        PioError: As ``pio.load``.
    """
    manifest, _ = registry.choose(raw, plugin)
    base: type[TextModelPlugin] = import_object(manifest.plugin)
    weights = dtypes.dtype(dtype or config_json.dtype(raw) or "bfloat16")
    needed = base.config_class.from_checkpoint(raw).parameters * weights.itemsize
    if options.get("quantize") is None:  # else loading checks what is packed
        require_free(needed, "random weights of this shape take", "choose a smaller config or a smaller --dtype")

    def open_weights(self: TextModelPlugin, checkpoint: Checkpoint) -> RandomWeights:
        return RandomWeights(weights)

    own = {"open_weights": open_weights, "__module__": base.__module__}  # whose code fails is told by that
    loaded: TextModelPlugin = type(f"Random{base.__name__}", (base,), own)()
    with tempfile.TemporaryDirectory(prefix="pio-") as folder:
        Path(folder, "config.json").write_text(json.dumps(raw), "utf-8")
        for file in beside:
            shutil.copy(file, folder)
        if isinstance(raw.get("vision_config"), dict):
            seen = preprocessor_config(raw["vision_config"])
            Path(folder, "preprocessor_config.json").write_text(json.dumps(seen), "utf-8")
        loaded.initialize(path=folder, **options)
        with loaded.load_model():
            yield loaded
