from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_folder import DATA, HEADER, packed
from hypothesis import given, settings
from hypothesis import strategies as st

from pio.errors import CheckpointError
from pio.loading.json_file import parse_object
from pio.loading.safetensors import SafetensorsFile

reference = pytest.importorskip("safetensors")
VALID = packed({"__metadata__": {"format": "pt"}, **HEADER})
NAMES = st.sampled_from(["a", "b", "__metadata__", "dtype", "shape", "data_offsets"])
NUMBERS = st.sampled_from([-1, 0, 1, 5, 6, 10, 24, 34, 2**31, 2**32, 2**62, 2**63, 2**64, 1.0, 1e300])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from(["F32", "BF16", "U8", "F4", "F7", ""]) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "w.safetensors"


def agrees(path: Path, content: bytes) -> bool:
    """Load the file: False if refused; if not, check every tensor against the reference implementation."""
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
        tensors = {name: file.tensor(name) for name in file.names}
    except CheckpointError as error:
        assert len(str(error)) < 2000
        return False
    expected = dict(reference.deserialize(content))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert list(tensor.shape) == expected[name]["shape"]
        assert tensor.dtype.safetensors == expected[name]["dtype"]
        data = bytes(tensor.memoryview().cast("B")) if tensor.size else b""
        assert data == bytes(expected[name]["data"])
    return True


def test_the_unspoilt_file_agrees(path: Path) -> None:
    assert agrees(path, VALID)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - len(DATA) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes(path: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(VALID)
    for place, value in changes:
        content[place] = value
    agrees(path, bytes(content))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(VALID)), st.integers(0, len(VALID)), st.binary(max_size=20))
def test_cut_and_inserted_bytes(path: Path, start: int, stop: int, inserted: bytes) -> None:
    agrees(path, VALID[:start] + inserted + VALID[stop:])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_fields(path: Path, data: st.DataObject) -> None:
    header: dict[str, Any] = json.loads(json.dumps({"__metadata__": {"format": "pt"}, **HEADER}))
    for _ in range(data.draw(st.integers(1, 3))):
        where: dict[str, Any] = header
        name = data.draw(st.sampled_from(sorted(header)) | NAMES)
        if isinstance(header.get(name), dict) and data.draw(st.booleans()):
            where, name = header[name], data.draw(NAMES)
        where[name] = data.draw(VALUES)
    agrees(path, packed(header, data.draw(st.sampled_from([DATA, DATA[:24], b""]))))


@settings(max_examples=200, deadline=None)
@given(st.permutations(["a", "b", "c"]), st.lists(st.integers(0, 6), min_size=3, max_size=3))
def test_any_order_of_entries_and_empty_tensors(path: Path, order: list[str], sizes: list[int]) -> None:
    ends = [sum(sizes[: i + 1]) for i in range(3)]
    entries = {
        name: {"dtype": "U8", "shape": [size], "data_offsets": [end - size, end]}
        for name, size, end in zip("abc", sizes, ends, strict=True)
    }
    assert agrees(path, packed({name: entries[name] for name in order}, DATA[: ends[-1]]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_refused(data: bytes) -> None:
    try:
        parsed = parse_object(data, "config.json")
    except CheckpointError as error:
        assert "config.json" in str(error)
    else:
        assert parsed == json.loads(data)
