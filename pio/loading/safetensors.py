"""Safetensors files: mapped into memory without a copy, or read into memory; and written atomically."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pio import dtypes
from pio.errors import CheckpointError
from pio.loading.file_error import unreadable, unwritable
from pio.loading.model_file import check_whole, open_regular, shown
from pio.loading.safetensors_header import MAX_BYTES, Entry, parse_header
from pio.loading.safetensors_writer import SafetensorsWriter, TensorHeader
from pio.loading.weight_file import PIECE, WeightFile
from pio.memory.layout import row_major
from pio.memory.storage import Storage
from pio.system import HERE
from pio.tensor import Tensor


class SafetensorsFile:
    """A checked safetensors file whose tensors are views of the mapped file.

    Pages are read when first touched, shared with every process that maps the file, and dropped by the system when it
    needs memory. The mapping lives as long as this object or any tensor of it. A file that is cut short meanwhile, or
    whose disk is taken away, ends the process; where that may happen, tensors are read into memory of their own
    instead, when they are asked for. Windows lets nobody cut short, replace or remove a file that is mapped.

    Attributes:
        path: The file.
        metadata: The strings under ``__metadata__``.
        state: Of the file when it was opened: device, number, size, and when it was written and changed, in nanoseconds
            since the epoch. Another file has another one, and so has this one after somebody has written to it.

    Raises:
        CheckpointError: The file cannot be read or its header is not entirely valid.
    """

    __slots__ = ("_entries", "_mapping", "_memory", "_start", "metadata", "path", "state")

    def __init__(self, path: str | os.PathLike[str], *, mapped: bool = True) -> None:
        self.path = Path(path)
        descriptor, size = open_regular(self.path)
        with io.FileIO(descriptor) as file:
            try:
                found = os.fstat(descriptor)
                self.state = found.st_dev, found.st_ino, size, found.st_mtime_ns, found.st_ctime_ns
                raw = self._read_header(file, size)
                self._start = 8 + len(raw)
                self._entries, self.metadata = parse_header(raw, size - self._start, str(self.path))
                self._mapping = self._map(descriptor, size) if mapped else None
                self._memory = Storage.of(self._mapping) if self._mapping else WeightFile(self.path, descriptor)
            except OSError as error:
                raise unreadable(self.path, error) from error

    def _read_header(self, file: io.FileIO, size: int) -> bytes:
        def fail(problem: str) -> CheckpointError:
            return CheckpointError(f"{self.path}: {problem}; the file is damaged or hostile, download it again")

        prefix = file.read(8) or b""
        check_whole(self.path, prefix)
        if len(prefix) < 8:
            raise fail(f"the file holds {size} bytes, a safetensors file holds at least 10")
        length = int.from_bytes(prefix, "little")
        if length > MAX_BYTES:
            raise fail(f"the header claims {length} bytes, at most {MAX_BYTES} are accepted")
        if length > size - 8:
            raise fail(f"the header claims {length} bytes, but only {size - 8} follow (the file is truncated)")
        raw = file.read(length) or b""
        if len(raw) < length:
            raise fail(f"the file ended {length - len(raw)} bytes before the end of its header")
        return raw

    def _map(self, descriptor: int, size: int) -> mmap.mmap:
        try:
            mapping = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
            now = mapping.size()
        except (
            ValueError,
            OSError,
        ) as error:  # of the module, and of Windows, where a file is shorter than the mapping
            mapping, now = None, os.fstat(descriptor).st_size
            if now >= size and isinstance(error, OSError):
                raise
        if mapping is None or now != size:  # a read beyond the end of a file that shrank would kill the process
            raise CheckpointError(
                f"{self.path} changed from {size} to {now} bytes while it was opened; "
                "wait until it is written completely and load it again"
            )
        HERE.prefer_huge_pages(mapping)  # a file is then read in larger pieces
        return mapping

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, in the order of their data."""
        return tuple(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return max((entry.end for entry in self._entries.values()), default=0)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, name: str) -> Entry:
        """Return type name, shape and place of a tensor, also where pio has no such type.

        Raises:
            CheckpointError: The file holds no tensor of that name.
        """
        found = self._entries.get(name)
        if found is None:
            raise CheckpointError(f"{self.path} holds no tensor {shown(name)}; download the model again")
        return found

    def tensor(self, name: str, *, blank: bool = False) -> Tensor:
        """Return a tensor, read-only; where its memory is the mapped file, its address may be unaligned.

        Args:
            name: Its name.
            blank: Where it would be read into memory, give zeros in its place.

        Raises:
            CheckpointError: There is no such tensor, pio cannot compute with its type, or it cannot be read.
            OutOfMemoryError: It is to be read, and the system refuses the memory.
        """
        entry = self.entry(name)
        dtype = dtypes.from_safetensors(entry.dtype)
        if dtype is None:
            known = ", ".join(known.safetensors for known in dtypes.ALL)
            raise CheckpointError(
                f"{self.path}: tensor {shown(name)} has the type {shown(entry.dtype)}, pio reads {known}; "
                "use a checkpoint in one of these, such as the model's bfloat16 original"
            )
        begin, end = self._start + entry.begin, self._start + entry.end
        if isinstance(self._memory, WeightFile):
            storage = self._memory.read(begin, end, blank=blank)
            address = storage.address
        else:
            storage, address = self._memory, self._memory.address + begin
        return Tensor(storage, address, dtype, entry.shape, row_major(entry.shape))

    def pieces(self) -> Iterator[memoryview]:
        """Yield all bytes of the file from its beginning on, some megabytes at a time, each valid until the next.

        Raises:
            CheckpointError: They cannot be read, or the file was changed since it was opened.
        """
        size = self.state[2]
        if isinstance(self._memory, WeightFile):
            yield from self._memory.pieces(size)
            return
        assert self._mapping is not None
        for begin in range(0, size, PIECE):
            nbytes = min(PIECE, size - begin)
            yield self._memory.memoryview(self._memory.address + begin, nbytes)
            HERE.drop_pages(self._mapping, begin, nbytes)

    def let_go(self, name: str) -> None:
        """Drop a mapped tensor's pages from this process's memory; they are read again when touched.

        Memory that it was read into is given back when the last tensor of it dies.

        Raises:
            CheckpointError: There is no such tensor.
        """
        entry = self.entry(name)
        first = -(-(self._start + entry.begin) // mmap.PAGESIZE) * mmap.PAGESIZE
        length = self._start + entry.end - first
        if length > 0 and self._mapping is not None:
            HERE.drop_pages(self._mapping, first, length)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file that appears complete or not at all.

    The data begin at a multiple of 64 bytes, the widest elements first, so that each tensor is aligned to its type.

    Args:
        path: The file; one of that name is replaced.
        tensors: Tensors by name; strided ones are made contiguous, one at a time.
        metadata: Strings to store under ``__metadata__``.

    Raises:
        CheckpointError: The file could not be written, for instance because the disk is full, or, on Windows, because
            somebody has the one of that name open or mapped.
    """
    target = Path(path)
    order = [TensorHeader(name, tensor.dtype, tensor.shape) for name, tensor in sorted(tensors.items())]
    order.sort(key=lambda header: -header.dtype.itemsize)
    try:
        with HERE.replacing(target) as beside, SafetensorsWriter(beside, order, metadata) as writer:
            for header in order:
                writer.write(tensors[header.name])
        HERE.sync_folder(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
