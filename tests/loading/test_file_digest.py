"""A digest of a weight file is that of its bytes, and is read from the file once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from needs import needs_replaceable_files

from pio.errors import CancelledError, CheckpointError
from pio.loading import file_digest as digests
from pio.loading import safetensors, weight_file
from pio.loading.file_digest import file_digest
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.loading.weights import Weights
from pio.tensor import Tensor

OLD = 1_000_000_000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_file, "PIECE", 1 << 16)
    monkeypatch.setattr(safetensors, "PIECE", 1 << 16)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Files whose bytes were read."""
    found: list[Path] = []
    before = SafetensorsFile.pieces

    def noting(self: SafetensorsFile) -> Iterator[memoryview]:
        found.append(self.path)
        return before(self)

    monkeypatch.setattr(SafetensorsFile, "pieces", noting)
    yield found


def numbers(path: Path, count: int = 50_000, first: float = 0.0) -> Path:
    """Write a file, as if long ago."""
    write_safetensors(path, {"a": Tensor.from_list([first + 0.5 * i for i in range(count)])})
    os.utime(path, (OLD, OLD))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment at which a file was made counts as long ago."""
    monkeypatch.setattr(digests, "SETTLED", -1.0)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("count", [1, 16_000, 50_000])
def test_it_is_that_of_all_bytes(tmp_path: Path, mapped: bool, count: int) -> None:
    path = numbers(tmp_path / "a.safetensors", count)
    found = file_digest(SafetensorsFile(path, mapped=mapped), tmp_path)
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_once(tmp_path: Path, read: list[Path], settled: None) -> None:
    path = numbers(tmp_path / "a.safetensors")
    found = {file_digest(SafetensorsFile(path, mapped=mapped), tmp_path) for mapped in (True, True, False)}
    assert len(found) == 1 and read == [path]
    assert [file.name[:8] for file in tmp_path.iterdir() if file != path] == ["weights-"]


@needs_replaceable_files
def test_a_file_that_was_written_or_replaced_is_read_again(tmp_path: Path, read: list[Path], settled: None) -> None:
    path = numbers(tmp_path / "a.safetensors")
    found = [file_digest(SafetensorsFile(path), tmp_path)]
    numbers(path, first=1.0)  # with the same size and time
    found.append(file_digest(SafetensorsFile(path), tmp_path))
    held = bytearray(path.read_bytes())
    held[-1] ^= 1
    path.write_bytes(held)
    os.utime(path, (OLD, OLD))
    found.append(file_digest(SafetensorsFile(path), tmp_path))
    assert len({*found}) == 3 and len(read) == 3


def test_nothing_is_noted_of_a_file_that_somebody_may_just_write(tmp_path: Path, read: list[Path]) -> None:
    path = numbers(tmp_path / "a.safetensors")
    for _ in range(2):
        file_digest(SafetensorsFile(path), tmp_path)
    assert len(read) == 2 and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("damaged", [b"", b"0123", b"x" * 64, b"A" * 64, b"0" * 65, bytes(64)])
def test_a_damaged_note_is_made_anew(tmp_path: Path, read: list[Path], settled: None, damaged: bytes) -> None:
    path = numbers(tmp_path / "a.safetensors")
    found = file_digest(SafetensorsFile(path), tmp_path)
    (note,) = (file for file in tmp_path.iterdir() if file != path)
    note.write_bytes(damaged)
    assert file_digest(SafetensorsFile(path), tmp_path) == found and len(read) == 2
    assert note.read_text("ascii") == found


def test_what_check_raises_ends_the_reading(tmp_path: Path) -> None:
    def check() -> None:
        raise CancelledError("enough")

    with pytest.raises(CancelledError, match="enough"):
        file_digest(SafetensorsFile(numbers(tmp_path / "a.safetensors")), tmp_path, check)


def test_weights_of_several_files(tmp_path: Path) -> None:
    """Copies are the same, whatever their folder is called; one changed number makes others."""
    found: list[Any] = []
    for name, first in (("one", 1.0), ("two", 1.0), ("three", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        numbers(folder / "model.safetensors", first=first)
        found.append(Weights(folder).digest(tmp_path))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("noted", [False, True])
def test_a_file_that_is_written_while_it_is_open_is_refused(tmp_path: Path, settled: None, noted: bool) -> None:
    """What was made of it before may be of the old bytes: a digest of the new ones must not stand for that."""
    path = numbers(tmp_path / "a.safetensors")
    file = SafetensorsFile(path)
    if noted:
        file_digest(file, tmp_path)
    with path.open("r+b") as written:
        written.seek(-4, os.SEEK_END)
        written.write(b"abcd")
    with pytest.raises(CheckpointError, match="was changed while it was loaded"):
        file_digest(file, tmp_path)
    assert file_digest(SafetensorsFile(path), tmp_path) == hashlib.sha256(path.read_bytes()).hexdigest()
