"""Whatever else people have at hand is refused by its name, with what to do."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_folder import HEADER, hub_repo, model_folder, packed, refused, sharded_folder, shards
from needs import link, needs_capitals, needs_fifos, needs_symlinks

import pio
from pio.loading.checkpoint import Checkpoint, resolve
from pio.system import HERE

FORMATS = {
    "model-Q4_K_M.gguf": "GGUF",
    "ggml-model-q4_0.bin": "GGUF",
    "model.GGUF": "GGUF",
    "pytorch_model.bin": "pickled",
    "pytorch_model-00001-of-00002.bin": "pickled",
    "consolidated.00.pth": "pickled",
    "model.pt": "pickled",
    "epoch-3.ckpt": "pickled",
    "model.onnx": "ONNX",
    "model.onnx_data": "ONNX",
    "openvino_model.xml": "OpenVINO",
    "consolidated.safetensors": "layout of its maker",
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "weights.npz": "MLX",
    "model.mlpackage": "Core ML",
    "gemma.task": "LiteRT",
    "rank0.engine": "TensorRT",
    "model_index.json": "diffusers",
    "model.zip": "archive",
    "model.tar.gz": "archive",
    "model.safetensors.incomplete": "not finished",
    "model.safetensors.part": "not finished",
}


def all_of(checkpoint: Checkpoint) -> object:
    tokenizer = checkpoint.read("tokenizer.json", 10_000)
    return checkpoint.config, checkpoint.generation_config, tokenizer, checkpoint.weights()


def load(path: Path) -> Callable[[], object]:
    return lambda: pio.load(path, progress=False)


@pytest.mark.parametrize("name", FORMATS)
def test_another_format(name: str, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / name).write_bytes(b"\0" * 64)
    (alone / "README.md").write_text("A model.")
    refused(load(alone), str(alone), "config.json", FORMATS[name], peak=20_000_000)
    beside = model_folder(tmp_path / "beside")
    (beside / "model.safetensors").rename(beside / name)
    refused(lambda: Checkpoint(beside).weights(), str(beside), "model.safetensors", FORMATS[name])
    refused(load(alone / name), name, FORMATS[name])


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_of_a_folder_in_place_of_the_folder(name: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "tokenizer.json").write_text("{}")
    refused(load(folder / name), f"{name} is a file", f"'{folder}'")


def test_gguf_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "sha256-0a1b").write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    refused(load(tmp_path / "sha256-0a1b"), "GGUF")


def test_what_lies_beside_sound_weights_is_not_blamed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    for name in ("training_args.bin", "optimizer.pt", "model.onnx"):
        (folder / name).touch()
    assert set(Checkpoint(folder).weights()) == set(HEADER)
    (folder / "config.json").unlink()
    message = refused(load(folder), str(folder), "config.json")
    assert "pickled" not in message and "ONNX" not in message


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    refused(load(tmp_path / "m"), "is empty")


@pytest.mark.parametrize("deep", ["m", "other name"])
def test_the_folder_around_a_model(deep: str, tmp_path: Path) -> None:
    (tmp_path / "outer" / "figures").mkdir(parents=True)
    model_folder(tmp_path / "outer" / deep)
    refused(load(tmp_path / "outer"), f"give {tmp_path / 'outer' / deep}")
    model_folder(tmp_path / "outer" / "a second")
    refused(load(tmp_path / "outer"), "2 models", "give one of them")


def test_the_cache_in_place_of_a_snapshot(tmp_path: Path) -> None:
    repo, snapshot = hub_repo(tmp_path)
    refused(load(repo), f"give {snapshot}")
    refused(load(repo / "snapshots"), f"give {snapshot}")
    refused(load(tmp_path), "a repo id")


@needs_capitals
@pytest.mark.parametrize("name", ["Config.json", "CONFIG.JSON"])
def test_capitals(name: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").rename(folder / name)
    refused(load(folder), "config.json", repr(name), "capitals")


def test_a_download_that_was_not_finished(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "download" / "abc.def.incomplete").touch()
    refused(lambda: Checkpoint(folder).weights(), "model.safetensors", "not finished")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0a" * 32 + "\nsize 1503300328\n"
PAGE = "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"


@pytest.mark.parametrize(("text", "words"), [(POINTER, "git lfs pull"), (PAGE, "web page"), (PAGE[16:], "web page")])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json", "tokenizer.json"])
def test_what_stands_in_for_a_file(name: str, text: str, words: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / name).write_text(text)
    refused(lambda: all_of(Checkpoint(folder)), str(folder / name), words)


def adapter(folder: Path, **fields: object) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, **fields}))
    (folder / "adapter_model.safetensors").write_bytes(packed(HEADER))


@pytest.mark.parametrize("config", [True, False])
def test_an_adapter_is_no_model(config: bool, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    adapter(folder, base_model_name_or_path="Qwen/Qwen3-0.6B")
    if not config:
        (folder / "config.json").unlink()
    refused(lambda: (Checkpoint(folder).config, Checkpoint(folder).weights()), "adapter", "'Qwen/Qwen3-0.6B'", "merge")


@pytest.mark.parametrize("base", [None, 7, "", "x" * 4000])
def test_an_adapter_whose_base_is_no_name(base: object, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    adapter(tmp_path / "m", base_model_name_or_path=base)
    refused(load(tmp_path / "m"), "adapter", "merge")


def test_an_adapter_beside_whole_weights_is_not_dropped(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    adapter(folder, base_model_name_or_path="org/base")
    refused(lambda: Checkpoint(folder).weights(), "adapter_config.json", "'org/base'", "merged already, remove")
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.safetensors").unlink()
    assert set(Checkpoint(folder).weights()) == set(HEADER)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "folder": os.mkdir,
    "pipe": lambda path: os.mkfifo(path),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "device": lambda path: link(path, "/dev/zero"),
    "circle": lambda path: link(path, path.name),
    "long circle": lambda path: (link(path, "b"), link(path.with_name("b"), path.name)),
}
NEEDED = {"folder": (), "pipe": needs_fifos, "socket": needs_fifos}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=NEEDED.get(kind, needs_symlinks)) for kind in SPECIAL])
@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "adapter_config.json"]
    + ["x-1.safetensors", "model.safetensors.index.json"],
)
def test_what_is_no_regular_file_does_not_hold_up(name: str, kind: str, tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m", {"a": "x-1.safetensors", "b": "x-2.safetensors"}, shards())
    (folder / name).unlink(missing_ok=True)
    SPECIAL[kind](folder / name)

    def read() -> None:
        refused(lambda: all_of(Checkpoint(folder)), str(folder / name))

    raised: list[BaseException] = []

    def run() -> None:
        try:
            read()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and not raised, raised


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: object) -> None:  # chmod would not stop root
        raise PermissionError(13, "Permission denied")

    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(pio.CheckpointError, match=f"may not read it; {HERE.permission_remedy}"):
        pio.load(folder, progress=False)


@needs_symlinks
def test_a_folder_that_is_a_circle(tmp_path: Path) -> None:
    link(tmp_path / "m", "m")
    refused(lambda: resolve(tmp_path / "m"), "leads back to itself")
