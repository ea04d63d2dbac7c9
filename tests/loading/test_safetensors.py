from __future__ import annotations

import gc
import json
import mmap
import os
import weakref
from pathlib import Path

import pytest
from needs import needs_replaceable_files, on_windows

from pio import dtypes
from pio.errors import CheckpointError, TensorError
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.tensor import Tensor

np = pytest.importorskip("numpy")
reference = pytest.importorskip("safetensors.numpy")


def arrays() -> dict[str, object]:
    return {
        "odd": np.arange(7, dtype=np.int8),
        "wide": np.arange(15, dtype=np.float32).reshape(3, 5) - 4.5,
        "half": (np.arange(6, dtype=np.float16) / 8).reshape(1, 2, 3),
        "long": np.array(-(2**40), dtype=np.int64),
        "empty": np.zeros((3, 0, 2), dtype=np.int32),
        "bytes": np.frombuffer(b"\x00\xff\x80", dtype=np.uint8),
    }


def test_reads_what_the_reference_writes(tmp_path: Path) -> None:
    reference.save_file(arrays(), tmp_path / "w.safetensors", metadata={"format": "np", "note": "é"})
    file = SafetensorsFile(tmp_path / "w.safetensors")
    assert file.metadata == {"format": "np", "note": "é"}
    assert set(file.names) == set(arrays()) and len(file) == 6 and "odd" in file and "none" not in file
    assert file.nbytes == 7 + 60 + 12 + 8 + 3
    for name, expected in arrays().items():
        tensor = file.tensor(name)
        assert tensor.shape == expected.shape
        assert tensor.tolist() == expected.tolist()


def test_the_reference_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {
        name: Tensor.from_buffer(a, shape=a.shape) for name, a in arrays().items() if name not in ("half", "long")
    }
    tensors["turned"] = tensors["wide"].transpose(1, 0)
    tensors["scalar"] = Tensor.from_list(2.5)
    write_safetensors(path, tensors, {"b": "2", "a": "é"})
    expected = {name: a for name, a in arrays().items() if name in tensors}
    expected |= {"turned": arrays()["wide"].T, "scalar": np.array(2.5, dtype=np.float32)}
    found = reference.load_file(path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].tolist() == array.tolist()
        assert SafetensorsFile(path).tensor(name).tolist() == array.tolist()
    assert SafetensorsFile(path).metadata == {"a": "é", "b": "2"}


def test_bfloat16_survives(tmp_path: Path) -> None:
    values = [1.0, -2.5, 3.0e38, 2.0**-130, float("inf")]
    write_safetensors(tmp_path / "w.safetensors", {"w": Tensor.from_list(values, dtypes.bfloat16)})
    tensor = SafetensorsFile(tmp_path / "w.safetensors").tensor("w")
    assert tensor.dtype is dtypes.bfloat16
    assert tensor.tolist() == Tensor.from_list(values, dtypes.bfloat16).tolist()
    assert tensor.tolist()[:2] == values[:2]


def test_written_data_begin_at_64_bytes_and_elements_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {"a": Tensor.from_list([1] * 3, dtypes.uint8), "b": Tensor.from_list([1.0] * 5, dtypes.float16)}
    tensors |= {"c": Tensor.from_list([1.0, 2.0]), "d": Tensor.from_list([3], dtypes.int64)}
    write_safetensors(path, tensors)
    assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 64 == 0
    file = SafetensorsFile(path)
    assert file.names == ("d", "c", "b", "a")
    for name in file.names:
        assert file.tensor(name).address % file.tensor(name).dtype.itemsize == 0


def test_tensors_are_views_of_one_mapping(tmp_path: Path) -> None:
    reference.save_file(arrays(), tmp_path / "w.safetensors")
    file = SafetensorsFile(tmp_path / "w.safetensors")
    size = os.path.getsize(tmp_path / "w.safetensors")
    storages = {id(file.tensor(name).storage) for name in file.names}
    assert len(storages) == 1
    for name in file.names:
        tensor = file.tensor(name)
        start = tensor.address - tensor.storage.address
        assert 8 < start and start + tensor.nbytes <= size == tensor.storage.nbytes
    assert file.tensor("wide").address == file.tensor("wide").address


def test_the_mapping_lives_as_long_as_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[object]] = []

    class Mapping(mmap.mmap):
        def __init__(self, *args: object, **kwargs: object) -> None:
            made.append(weakref.ref(self))

    monkeypatch.setattr("pio.loading.safetensors.mmap.mmap", Mapping)
    reference.save_file(arrays(), tmp_path / "w.safetensors")
    file = SafetensorsFile(tmp_path / "w.safetensors")
    row = file.tensor("wide")[1]
    del file
    gc.collect()
    assert made[0]() is not None
    assert row.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    del row
    gc.collect()
    assert made[0]() is None


@needs_replaceable_files
def test_a_mapped_file_may_be_removed(tmp_path: Path) -> None:
    reference.save_file(arrays(), tmp_path / "w.safetensors")
    file = SafetensorsFile(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").unlink()
    assert file.tensor("wide")[1].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]


def test_weights_cannot_be_written_to(tmp_path: Path) -> None:
    reference.save_file(arrays(), tmp_path / "w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()
    tensor = SafetensorsFile(tmp_path / "w.safetensors").tensor("wide")
    with pytest.raises(TensorError, match="read"):
        tensor.fill_(0.0)
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_unaligned_data_are_read(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    raw = json.dumps(header).encode()
    data = b"abc" + np.array([1.5, -2.0], dtype=np.float32).tobytes()
    (tmp_path / "w.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    tensor = SafetensorsFile(tmp_path / "w.safetensors").tensor("b")
    assert tensor.tolist() == [1.5, -2.0]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"w": Tensor.from_list([1.0, 2.0])})
    write_safetensors(path, {"w": Tensor.from_list([3.0])})
    assert SafetensorsFile(path).tensor("w").tolist() == [3.0]
    assert os.listdir(tmp_path) == ["w.safetensors"]


@needs_replaceable_files
def test_a_mapped_file_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"w": Tensor.from_list([1.0, 2.0])})
    old = SafetensorsFile(path).tensor("w")
    write_safetensors(path, {"w": old[:1]})
    assert old.tolist() == [1.0, 2.0]
    assert SafetensorsFile(path).tensor("w").tolist() == [1.0]
    assert os.listdir(tmp_path) == ["w.safetensors"]


@on_windows
def test_a_mapped_file_is_not_replaced_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"w": Tensor.from_list([1.0, 2.0])})
    old = SafetensorsFile(path).tensor("w")
    with pytest.raises(
        CheckpointError, match=r"cannot write .*w\.safetensors: another program, or this one, has it open;"
    ):
        write_safetensors(path, {"w": Tensor.from_list([3.0])})
    assert old.tolist() == [1.0, 2.0] and os.listdir(tmp_path) == ["w.safetensors"]
    del old
    write_safetensors(path, {"w": Tensor.from_list([3.0])})
    assert SafetensorsFile(path).tensor("w").tolist() == [3.0]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"w": Tensor.from_list([1.0])})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device; free disk space"):
        write_safetensors(path, {"w": Tensor.from_list([2.0])})
    assert os.listdir(tmp_path) == ["w.safetensors"]
    assert SafetensorsFile(path).tensor("w").tolist() == [1.0]


def test_writing_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*none"):
        write_safetensors(tmp_path / "none" / "w.safetensors", {})


def test_a_file_of_no_tensors(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w.safetensors", {})
    file = SafetensorsFile(tmp_path / "w.safetensors")
    assert file.names == () and file.nbytes == 0 and file.metadata == {}
