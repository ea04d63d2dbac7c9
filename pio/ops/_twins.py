"""What lies on a GPU, as the CPU can work on it: copies in memory of this process, laid out as the original is.

Whatever shares memory shares it here too, and keeps its distances, so that an operation finds its arguments as it would
find them there. Only what the operation can look at is copied: the stretches that tensors cover, of a cache the blocks
of the batch's sequences, of states their slots, of experts those that were chosen, of a table the rows that are read.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from math import prod
from typing import Any, Final, NamedTuple, cast

from pio.device import Device, default_device
from pio.dtypes import uint8
from pio.memory.allocation import ALIGNMENT
from pio.memory.layout import offsets, runs, span
from pio.memory.storage import Storage
from pio.ops._used import limits, used_rows
from pio.ops.experts import ExpertWeights
from pio.ops.pages import Pages
from pio.ops.quantized import PackedWeight
from pio.ops.slices import Slices
from pio.tensor import Tensor

# What an operation computes in, by the names of arguments and fields: nothing is read there before it is written.
WORKSPACES: Final = ("scratch", "desks")
_MOST_RUNS: Final = 256  # a tensor with gaps is copied run by run, up to so many; of more, the gaps too

Run = tuple[int, int]  # where bytes begin and end


class _Part(NamedTuple):
    """A tensor of the arguments, what limits which of its rows are used, if anything, and which expert's it is."""

    tensor: Tensor
    limit: str = ""
    row: int = 0


class _Stretch:
    """Bytes of a GPU and their copy."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self._storage: Storage | None = None

    @property
    def storage(self) -> Storage:
        """The copy's memory, made when it is first asked for."""
        if self._storage is None:
            nbytes = self.high - self.low + ALIGNMENT
            self._storage = Storage.allocate(nbytes, what="a copy of what lies on a GPU")
        return self._storage

    @property
    def shift(self) -> int:
        """From an address there to that of the copy, which is aligned as the original is."""
        return self.storage.address + self.low % ALIGNMENT - self.low


class Twins:
    """Copies of arguments, for one call.

    Attributes:
        device: Where the originals lie.
        moved: Whether a result was none of the arguments, and was copied to the GPU.
    """

    def __init__(self, arguments: Mapping[str, object]) -> None:
        """Find what lies on a GPU; nothing is copied yet.

        Args:
            arguments: Of an operation, by their names: tensors, and what has some.
        """
        self._originals: dict[int, tuple[object, object]] = {}  # by their twins, which are kept with them
        self._limited: dict[int, list[Run]] = {}  # what is used of tensors that are not used whole, by their addresses
        self._arguments, known = arguments, limits(arguments)
        self._parts = [part for name, value in arguments.items() for part in _parts(value, name, known.get(name, ""))]
        self.device: Device = self._parts[0].tensor.device if self._parts else default_device()
        self._stretches = _joined(sorted(_bytes(part.tensor) for part in self._parts))
        self._lows = [stretch.low for stretch in self._stretches]
        self.moved = False

    def __bool__(self) -> bool:
        """Whether anything lies on a GPU."""
        return self.device.stream is not None

    def make(self, *, filled: bool = True) -> dict[str, Any]:
        """Return arguments as the CPU takes them.

        Args:
            filled: Whether they hold what the originals hold; else zeros.
        """
        if filled:
            self._fill(run for part in self._parts if not part.limit for run in _runs(part.tensor))
        made = {name: self._twin(value, name) for name, value in self._arguments.items()}
        if filled and any(part.limit for part in self._parts):
            used = used_rows(made)
            for tensor, limit, row in self._parts:
                if limit:
                    found = _rows(tensor, used[limit]) if limit != "experts" else _runs(tensor, row in used[limit])
                    self._limited[tensor.address] = list(found)
            self._fill(run for found in self._limited.values() for run in found)
        return made

    def _fill(self, wanted: Iterable[Run]) -> None:
        stream = self.device.stream
        if stream is not None:
            for low, high in dict.fromkeys(wanted):  # each once
                stream.copy_out(low + self._stretch(low).shift, low, high - low)

    def write_back(self, written: Iterable[Tensor]) -> None:
        """Copy to the GPU what was written; tensors that are none of the copies are passed over."""
        wanted = dict[Run, None]()
        for tensor in written:
            low, high = _bytes(tensor)
            for stretch in self._stretches:
                shift = stretch.shift
                if stretch.low <= low - shift < high - shift <= stretch.high:
                    found = self._limited.get(tensor.address - shift)
                    whole = [(begin - shift, end - shift) for begin, end in _runs(tensor)]
                    wanted.update(dict.fromkeys(whole if found is None else found))
        stream = self.device.stream
        if stream is not None:
            for low, high in wanted:
                stream.copy_in(low, low + self._stretch(low).shift, high - low)

    def original(self, value: Any) -> Any:
        """Return for a result of the operation the argument that it is, or else its copy on the GPU."""
        if id(value) in self._originals:
            return self._originals[id(value)][0]
        if isinstance(value, Tensor | PackedWeight):
            self.moved = True
            return value.to(self.device)
        if isinstance(value, tuple):
            return tuple(self.original(each) for each in cast("tuple[Any, ...]", value))
        return value

    def _twin(self, value: Any, name: str) -> Any:
        twin = self._made(value, name)
        if twin is not value:
            self._originals[id(twin)] = value, twin
        return twin

    def _made(self, value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            return value if value.device.stream is None else self._tensor(value, name)
        if isinstance(value, PackedWeight):
            return PackedWeight(self._twin(value.data, name), value.form.name, value.shape)
        if isinstance(value, ExpertWeights):
            return ExpertWeights([self._twin(matrix, name) for matrix in value.matrices])
        if isinstance(value, Slices):
            twin = copy.copy(value)
            for field in _tables(value):
                setattr(twin, field, self._twin(getattr(value, field), field))
            return twin
        if isinstance(value, list | tuple):
            several = [self._twin(each, name) for each in cast("list[Any]", value)]
            return several if isinstance(value, list) else tuple(several)
        if is_dataclass(value) and not isinstance(value, type):
            made: dict[str, Any] = {f.name: self._twin(getattr(value, f.name), f.name) for f in fields(value)}
            return replace(value, **made)
        return value

    def _tensor(self, value: Tensor, name: str) -> Tensor:
        if name in WORKSPACES:
            return _workspace(value, name)
        stretch = self._stretch(_bytes(value)[0])
        place = stretch.storage, value.address + stretch.shift, value.dtype, value.shape, value.strides
        return Pages(*place, value.format) if isinstance(value, Pages) else Tensor(*place)

    def _stretch(self, address: int) -> _Stretch:
        return self._stretches[max(0, bisect_right(self._lows, address) - 1)]


def place(addresses: Tensor, nbytes: int, device: Device) -> tuple[Tensor, list[Storage]]:
    """Return addresses of copies of rows, for addresses of rows on a GPU; 0 stays 0.

    Args:
        addresses: int64 (n,), of the CPU.
        nbytes: Of each row.
        device: Where the rows lie.

    Returns:
        int64 (n,), and the memory to keep as long as it is used.
    """
    stream, here, kept = device.stream, addresses.clone(), list[Storage]()
    view = here.memoryview()
    for i, address in enumerate(view):
        if address and stream is not None:
            row = Storage.allocate(nbytes, what="a copy of a row")
            stream.copy_out(row.address, address, nbytes)
            view[i] = row.address
            kept.append(row)
    return here, kept


def _parts(value: Any, name: str, limit: str) -> Iterator[_Part]:
    """Yield the tensors of a GPU whose numbers an operation may read or write."""
    if isinstance(value, Tensor):
        if value.device.stream is not None and name not in WORKSPACES:
            yield _Part(value, limit)
    elif isinstance(value, PackedWeight):
        yield from _parts(value.data, name, limit)
    elif isinstance(value, ExpertWeights):
        for row, matrix in enumerate(value.matrices):
            yield from (part._replace(row=row) for part in _parts(matrix, name, limit))
    elif isinstance(value, Slices):
        if value.record.device.stream is not None:  # its tables are found by their distance from the record
            storage, last = value.record.storage, value.block_tables  # behind which no operation reads
            yield _Part(Tensor(storage, storage.address, uint8, (last.address + last.nbytes - storage.address,), (1,)))
    elif isinstance(value, list | tuple):
        for each in cast("list[Any]", value):
            yield from _parts(each, name, limit)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _parts(getattr(value, field.name), field.name, limit)


def _tables(batch: Slices) -> Iterator[str]:
    """Yield the names of all tensors of a batch."""
    for cls in type(batch).__mro__:
        for name in getattr(cls, "__slots__", ()):
            if isinstance(getattr(batch, name, None), Tensor):
                yield name


def _bytes(x: Tensor) -> Run:
    low, high = span(x.shape, x.strides)
    return x.address + low * x.dtype.itemsize, x.address + high * x.dtype.itemsize


def _runs(x: Tensor, wanted: bool = True) -> Iterator[Run]:
    """Yield stretches that together hold a tensor's elements, if they are wanted."""
    if not x.size or not wanted:
        return
    length, outer = runs(x.shape, x.strides, x.strides)
    if prod(outer) > _MOST_RUNS:
        yield _bytes(x)
        return
    for offset in offsets(outer, x.strides):
        begin = x.address + offset * x.dtype.itemsize
        yield begin, begin + length * x.dtype.itemsize


def _rows(x: Tensor, rows: Iterable[int]) -> Iterator[Run]:
    """Yield stretches that hold some rows of a tensor; rows that there are not are passed over."""
    for row in rows:
        if 0 <= row < x.shape[0]:
            yield from _runs(x[row])


def _joined(spans: list[Run]) -> list[_Stretch]:
    """Return stretches that cover spans, in order; spans that overlap are in one."""
    out: list[_Stretch] = []
    for low, high in spans:
        if out and low < out[-1].high:
            out[-1].high = max(out[-1].high, high)
        else:
            out.append(_Stretch(low, high))
    return out


def _workspace(value: Tensor, name: str) -> Tensor:
    """Return memory to compute in, with rows for each thread where the original has them for the GPU, which is one."""
    per_thread = name == "desks" or value.ndim == 2
    rows = value.shape[0] * (default_device().threads if per_thread else 1)
    return Tensor.empty((rows, *value.shape[1:]), value.dtype)
