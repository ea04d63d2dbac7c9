"""Builds model folders that nobody should send, and checks that pio refuses them as it promises."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import SYMLINKS, link

from pio.errors import CheckpointError

REMEDIES = ("download", "correct", "replace", "give ", "choose", "do not use", "load it again", "use a ", "wait until")
HEADER = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]},
}
DATA = bytes(range(34))


def packed(header: object, data: bytes = DATA, *, length: int | None = None) -> bytes:
    """Return a safetensors file of this header: text, bytes or anything that JSON can hold."""
    raw = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def with_entry(name: str, **fields: object) -> dict[str, dict[str, object]]:
    """Return the valid header with fields of one entry replaced."""
    header = {key: dict(value) for key, value in HEADER.items()}
    header[name].update(fields)
    return header


def model_folder(path: Path, weights: bytes | None = None, config: str = '{"model_type": "qwen3"}') -> Path:
    """Write a folder with a config and one weights file, which is valid unless given."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config)
    (path / "model.safetensors").write_bytes(packed(HEADER) if weights is None else weights)
    return path


def sharded_folder(path: Path, weight_map: object, files: dict[str, bytes] | None = None) -> Path:
    """Write a folder with an index, and the files given or two valid shards."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text('{"model_type": "qwen3"}')
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name, content in (shards() if files is None else files).items():
        (path / name).write_bytes(content)
    return path


def shards() -> dict[str, bytes]:
    """Return two valid shards: x-1 holds a, x-2 holds b."""
    return {
        "x-1.safetensors": packed({"a": HEADER["a"]}, DATA[:24]),
        "x-2.safetensors": packed({"b": {**HEADER["b"], "data_offsets": [0, 10]}}, DATA[24:]),
    }


def hub_repo(cache: Path, *, links: bool = SYMLINKS) -> tuple[Path, Path]:
    """Write a repo as huggingface_hub keeps it, with copies where no links can be made; return it and its snapshot."""
    repo = cache / "models--org--name"
    snapshot = repo / "snapshots" / ("c" * 40)
    for place in (repo / "blobs", repo / "refs", snapshot):
        place.mkdir(parents=True)
    (repo / "refs" / "main").write_text("c" * 40)
    for name, content in {"config.json": b"{}", "model.safetensors": packed(HEADER)}.items():
        (repo / "blobs" / f"blob-{name}" if links else snapshot / name).write_bytes(content)
        if links:
            link(snapshot / name, f"../../blobs/blob-{name}")
    return repo, snapshot


def refused(load: Callable[[], object], *mentions: str, peak: int = 3_000_000) -> str:
    """Check that ``load`` raises one CheckpointError with these words and a remedy, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            load()
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert type(caught.value) is CheckpointError
    for word in mentions:
        assert word in message
    assert any(remedy in message for remedy in REMEDIES), message
    assert len(message) < 2000 and message.isprintable(), message
    assert used < peak
    return message
