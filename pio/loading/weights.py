"""The tensors of a model folder: handed out once each with the shape that the model expects, and accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, get_args, overload

from pio import dtypes
from pio.errors import CheckpointError
from pio.loading.file_digest import file_digest
from pio.loading.finite import check_numbers, check_scales
from pio.loading.model_file import shown, shown_names
from pio.loading.quantization_config import Format
from pio.loading.safetensors import SafetensorsFile
from pio.loading.safetensors_header import shown_shape
from pio.loading.shard_index import INDEX, SINGLE, shard_map, warn_of_others, weight_files
from pio.loading.stored_buffers import buffer

if TYPE_CHECKING:
    from pio.dtypes import DType
    from pio.ops.quantized import PackedWeight
    from pio.tensor import Tensor

FLOATS = (dtypes.float32, dtypes.float16, dtypes.bfloat16)
_LISTED = 10
_COMPARED = 1 << 24  # bytes at once


class Weights:
    """All tensors of a folder by name, and which of them a model has taken.

    Opening maps every file and checks every header; it reads no tensor.

    Args:
        folder: A folder with ``model.safetensors``, or an index and its shards, or one other safetensors file.
        mapped: Map the files; otherwise each tensor is read into memory as it is taken.

    Attributes:
        rehearsing: Whether a model is built only to see what it will take: nothing is read into memory then.

    Raises:
        CheckpointError: A file is missing or damaged, or files and index contradict each other.
    """

    def __init__(self, folder: str | Path, *, mapped: bool = True) -> None:
        self.folder = Path(folder)
        self.rehearsing = False
        self._files: dict[str, SafetensorsFile] = {}
        self._used: set[str] = set()
        self._ignored: dict[str, str] = {}
        self._packed: dict[str, PackedWeight] = {}
        self._same: dict[tuple[str, str], bool] = {}
        names = weight_files(self.folder)
        warn_of_others(self.folder, names)
        files = {name: SafetensorsFile(self.folder / name, mapped=mapped) for name in names}
        for file_name, file in files.items():
            for name in file.names:
                if name in self._files:
                    self._fail(f"tensor {shown(name)} is in {self._files[name].path.name} and in {file_name}")
                self._files[name] = file
        if names != [SINGLE]:
            self._check_index(files)
        known = {name: buffer(name, file.entry(name).shape) for name, file in self._files.items()}
        self._ignored.update((name, what) for name, what in known.items() if what is not None)

    def _check_index(self, files: dict[str, SafetensorsFile]) -> None:
        for name, file_name in (shard_map(self.folder) or {}).items():
            if name not in files[file_name]:
                self._fail(f"{INDEX} places tensor {shown(name)} in {file_name}, which does not hold it")

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in the folder, taken or not."""
        return sum(file.nbytes for file in set(self._files.values()))

    @property
    def matrices(self) -> int:
        """Number of tensors with two dimensions."""
        return sum(len(self.shape(name)) == 2 for name in self)

    @property
    def used(self) -> frozenset[str]:
        """Names of the tensors that were taken."""
        return frozenset(self._used)

    @property
    def skipped(self) -> dict[str, int]:
        """How many tensors are skipped knowingly, by what they are."""
        return dict(Counter(why for name, why in self._ignored.items() if name in self and name not in self._used))

    def digest(self, notes: Path, check: Callable[[], object] = lambda: None) -> str:
        """Return a digest of all that the files hold; copies of them have the same one.

        Args:
            notes: A folder where digests of files are noted, so that each file is read once.
            check: Called between pieces; what it raises ends the reading.

        Raises:
            CheckpointError: A file cannot be read.
        """
        files = {file.path: file for file in self._files.values()}
        found = sorted(file_digest(file, notes, check) for file in files.values())
        return sha256(" ".join(found).encode()).hexdigest()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape as stored, without taking it.

        Raises:
            CheckpointError: There is no such tensor.
        """
        return self._file(name).entry(name).shape

    @overload
    def take(
        self, name: str, shape: tuple[int, ...], *, optional: Literal[False] = False, dtypes: tuple[DType, ...] = FLOATS
    ) -> Tensor: ...
    @overload
    def take(
        self, name: str, shape: tuple[int, ...], *, optional: bool, dtypes: tuple[DType, ...] = FLOATS
    ) -> Tensor | None: ...
    def take(
        self, name: str, shape: tuple[int, ...], *, optional: bool = False, dtypes: tuple[DType, ...] = FLOATS
    ) -> Tensor | None:
        """Return a tensor of the file and mark it used; tied weights may be taken more than once.

        Args:
            name: Its name in the checkpoint.
            shape: The shape that the configuration asks for.
            optional: Return None where there is no such tensor.
            dtypes: The element types that the model can use.

        Raises:
            CheckpointError: It is missing, or its shape or type is another.
        """
        if optional and name not in self._files:
            return None
        file = self._file(name)
        found = file.entry(name).shape
        if found != tuple(shape):
            raise CheckpointError(
                f"{file.path}: tensor {shown(name)} has shape {shown_shape(found)}, but config.json asks for "
                f"{shown_shape(tuple(shape))}; config.json and weights belong to different models, download both again"
            )
        tensor = file.tensor(name, blank=self.rehearsing)
        if tensor.dtype not in dtypes:
            raise CheckpointError(
                f"{file.path}: tensor {shown(name)} has type {tensor.dtype}, expected "
                f"{' or '.join(map(str, dtypes))}; use a checkpoint stored in one of these types"
            )
        self._used.add(name)
        return tensor

    def take_packed(self, name: str, shape: tuple[int, int]) -> PackedWeight | None:
        """Return a matrix that ``pio quantize`` packed and mark it used; None where it is stored as floats.

        Args:
            name: Its name in the checkpoint.
            shape: The shape of the matrix that the configuration asks for.

        Raises:
            CheckpointError: It is missing, or packed in another way than such a matrix is.
        """
        file = self._file(name)
        entry = file.entry(name)
        if entry.dtype != dtypes.uint8.safetensors:
            return None
        from pio.ops.quantized import PackedWeight, form_of, packed_shape  # only such folders need the kernels

        form = form_of(entry.shape)
        if form is None or entry.shape != packed_shape(shape, form):
            wanted = [f"{shown_shape(packed_shape(shape, known))} as {known}" for known in get_args(Format)]
            raise CheckpointError(
                f"{file.path}: tensor {shown(name)} has packed bytes of shape {shown_shape(entry.shape)}, but a matrix "
                f"of shape {shown_shape(shape)}, which config.json asks for, has {' or '.join(wanted)}; "
                "quantize the original folder again with pio quantize, or download it again"
            )
        packed = PackedWeight(self.take(name, entry.shape, dtypes=(dtypes.uint8,)), form, shape)
        self._packed[name] = packed
        return packed

    def same(self, one: str, other: str) -> bool:
        """Return whether two tensors are stored alike, to the bit; the first is skipped then.

        The memory of both is given back piece by piece, so that a large table is not held twice.
        """
        if (one, other) not in self._same:
            files = self._file(one), self._file(other)
            first, second = files[0].tensor(one), files[1].tensor(other)
            alike = (first.dtype, first.shape) == (second.dtype, second.shape)
            bytes_of = [tensor.storage.memoryview(tensor.address, tensor.nbytes) for tensor in (first, second)]
            for start in range(0, first.nbytes if alike else 0, _COMPARED):
                pieces = [bytes(view[start : start + _COMPARED]) for view in bytes_of]
                self.let_go(one)
                self.let_go(other)
                if pieces[0] != pieces[1]:
                    alike = False
                    break
            self._same[one, other] = alike
        if self._same[one, other]:
            self._ignored[one] = f"the same as {other}"
        return self._same[one, other]

    def convert(self, name: str, shape: tuple[int, int], pack: Callable[[Tensor], PackedWeight]) -> PackedWeight:
        """Return what ``pack`` makes of a matrix, and let go of the mapped one.

        Raises:
            CheckpointError: As ``take``, and what ``pack`` finds.
        """
        packed = pack(self.take(name, shape))
        self.let_go(name)
        return packed

    def let_go(self, name: str) -> None:
        """Drop a tensor's pages from this process's memory; they are read again when touched."""
        self._file(name).let_go(name)

    def ignore(self, which: Callable[[str], bool] | Iterable[str], why: str = "not used by this model") -> None:
        """Skip tensors knowingly, so that ``finish`` does not list them.

        Args:
            which: Names, which need not exist, or a function that says whether a name is to be skipped.
            why: What they are, in a few words.
        """
        if callable(which):
            names = [name for name in self._files if which(name)]
        else:
            names = [which] if isinstance(which, str) else which
        self._ignored.update(dict.fromkeys(names, why))

    def finish(self) -> None:
        """Check that every tensor was taken or ignored.

        Raises:
            CheckpointError: Some were not; the message lists the first ten.
        """
        unused = self._unused()
        if unused:
            raise CheckpointError(
                f"{self.folder}: the model does not use {len(unused)} of the {len(self)} tensors: "
                f"{shown_names(unused, _LISTED)}; config.json does not describe these weights: download both again, or "
                "choose the plugin of this model"
            )

    def check_finite(self, name: str) -> None:
        """Read a whole tensor and check that it holds numbers.

        Raises:
            CheckpointError: It holds NaN or an infinity; the message says where.
        """
        file = self._file(name)
        if name in self._packed:
            check_scales(file.path, name, self._packed[name])
        else:
            check_numbers(file.path, name, file.tensor(name))

    def _unused(self) -> list[str]:
        return [name for name in self._files if name not in self._used and name not in self._ignored]

    def _file(self, name: str) -> SafetensorsFile:
        file = self._files.get(name)
        if file is None:
            unused = self._unused()
            rest = f"; tensors not used so far are {shown_names(unused, _LISTED)}" if unused else ""
            self._fail(f"tensor {shown(name)} is missing{rest}")
        return file

    def _fail(self, problem: str) -> NoReturn:
        raise CheckpointError(
            f"{self.folder}: {problem}; the files do not belong together or config.json describes another model, "
            "download the model again"
        )
