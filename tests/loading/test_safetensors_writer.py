"""Files written from front to back."""

from __future__ import annotations

from pathlib import Path

import pytest

from pio.dtypes import bfloat16, float32, uint8
from pio.errors import CheckpointError
from pio.loading import safetensors_writer
from pio.loading.safetensors import SafetensorsFile
from pio.loading.safetensors_writer import SafetensorsWriter, TensorHeader, aligned_order
from pio.tensor import Tensor

DESCRIBED = [
    TensorHeader("odd", bfloat16, (3, 5)),
    TensorHeader("line", bfloat16, (4, 8)),
    TensorHeader("bytes", uint8, (7,)),
    TensorHeader("packed", uint8, (2, 3, 576)),
    TensorHeader("wide", float32, (9,)),
    TensorHeader("none", float32, (0, 4)),
]


def test_whole_lines_come_first_then_the_widest() -> None:
    names = [tensor.name for tensor in aligned_order(DESCRIBED)]
    assert names == ["line", "packed", "none", "wide", "odd", "bytes"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    order = aligned_order(DESCRIBED)
    tensors = {
        t.name: Tensor.from_list([float((7 * i + len(t.name)) % 113) for i in range(t.nbytes // t.dtype.itemsize)])
        .astype(t.dtype)
        .reshape(*t.shape)
        for t in order
    }
    tensors["line"] = tensors["line"].reshape(8, 4).T  # strided
    with SafetensorsWriter(tmp_path / "a.safetensors", order, {"made": "here"}) as writer:
        for described in order:
            writer.write(tensors[described.name])
    found = SafetensorsFile(tmp_path / "a.safetensors")
    assert found.metadata == {"made": "here"} and list(found.names) == [t.name for t in order]
    for name, tensor in tensors.items():
        stored = found.tensor(name)
        assert (stored.dtype, stored.tolist()) == (tensor.dtype, tensor.tolist())
        if tensor.nbytes % 64 == 0:
            assert stored.address % 64 == 0
        assert stored.address % stored.dtype.itemsize == 0


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError):
        SafetensorsWriter(tmp_path / "a", DESCRIBED)
    assert (tmp_path / "a").read_text() == "mine"


def test_a_header_that_nobody_would_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_writer, "MAX_BYTES", 300)
    with pytest.raises(CheckpointError, match="at most 300"):
        SafetensorsWriter(tmp_path / "a", DESCRIBED)
    assert not (tmp_path / "a").exists()
