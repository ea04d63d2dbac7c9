from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needs import link, needs_symlinks

import pio
import pio.loading.checkpoint as checkpoint_module
from pio.errors import CheckpointError
from pio.loading.checkpoint import Checkpoint, resolve
from pio.loading.safetensors import write_safetensors
from pio.tensor import Tensor

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):  # on Windows the latter says where ~ is
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    write_safetensors(folder / "model.safetensors", {"w": Tensor.from_list([1.0])})
    return folder


def cached(cache: Path, repo: str = "models--Org--name-1.5", revision: str = "main") -> Path:
    reference = cache / repo / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(COMMIT)
    folder = cache / repo / "snapshots" / COMMIT
    return folder if folder.exists() else model(folder)


def test_a_folder_by_any_spelling(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    for spelling in (folder, str(folder), "m", "m/", "./m", Path("m"), "../" + tmp_path.name + "/m"):
        assert os.path.samefile(resolve(spelling), folder)
        assert resolve(spelling).is_absolute()
    home = model(tmp_path / "home" / "here")
    assert resolve("~/here") == home


@needs_symlinks
def test_a_link_to_a_folder_is_a_folder(tmp_path: Path) -> None:
    model(tmp_path / "disk" / "m")
    link(tmp_path / "link", tmp_path / "disk" / "m")
    checkpoint = Checkpoint(resolve("link"))
    assert checkpoint.path == tmp_path / "link"
    assert checkpoint.config == {"model_type": "qwen3"} and list(checkpoint.weights()) == ["w"]


def test_demo_is_the_packaged_model(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()  # a folder of that name is common, and is not meant
    demo = resolve("demo")
    assert demo == Path(checkpoint_module.__file__).parent.parent / "demo"
    assert Checkpoint(demo).config["model_type"] == "qwen3"
    assert resolve("./demo") == resolve(Path("demo")) == tmp_path / "demo"


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({}, "home/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{}/xdg", "HF_HOME": "{}/hf"}, "hf/hub"),
        ({"HF_HOME": "~/hf"}, "home/hf/hub"),
        ({"HF_HOME": "{}/hf", "HUGGINGFACE_HUB_CACHE": "{}/old"}, "old"),
        ({"HF_HOME": "{}/hf", "HF_HUB_CACHE": "$HOME/hub", "HUGGINGFACE_HUB_CACHE": "{}/old"}, "home/hub"),
    ],
)
def test_a_repo_in_the_cache(
    variables: dict[str, str], cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    with pytest.raises(CheckpointError, match=r"run pio download Org/name-1\.5,"):
        resolve("Org/name-1.5")
    folder = cached(tmp_path / cache)
    assert resolve("Org/name-1.5") == folder
    assert resolve("Org/name-1.5@" + COMMIT) == folder
    with pytest.raises(CheckpointError, match=r"run pio download Org/name-1\.5 --revision v2,"):
        resolve("Org/name-1.5@v2")
    cached(tmp_path / cache, revision="v2")
    cached(tmp_path / cache, revision="refs/pr/3")
    assert resolve("Org/name-1.5@v2") == resolve("Org/name-1.5@refs/pr/3") == folder


@pytest.mark.parametrize("given", [None, 5, ["demo"], b"", ""])
def test_what_is_no_name_is_refused(given: Any) -> None:
    with pytest.raises(CheckpointError, match="names no model; give a model folder, a repo id or 'demo'"):
        pio.load(given)


def test_a_folder_wins_over_a_repo_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    in_cache = cached(tmp_path / "cache")
    assert resolve("Org/name-1.5") == in_cache
    here = model(tmp_path / "Org" / "name-1.5")
    assert resolve("Org/name-1.5") == here


def test_a_half_download_is_not_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = cached(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pio download"):
        resolve("Org/name-1.5")
    weight_map = {"a": "m-1.safetensors", "b": "m-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    write_safetensors(folder / "m-1.safetensors", {"a": Tensor.from_list([1.0])})
    with pytest.raises(CheckpointError, match="pio download"):
        resolve("Org/name-1.5")
    write_safetensors(folder / "m-2.safetensors", {"b": Tensor.from_list([1.0])})
    assert resolve("Org/name-1.5") == folder
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="pio download"):
        resolve("Org/name-1.5")


def test_download_is_only_called_when_asked_and_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    asked: list[tuple[str, str | None]] = []

    def fetch(repo: str, *, revision: str | None = None) -> Path:
        asked.append((repo, revision))
        return tmp_path

    monkeypatch.setattr("pio.loading.download.download", fetch)
    assert resolve("Org/other@v3", download=True) == tmp_path
    assert asked == [("Org/other", "v3")]
    folder = cached(tmp_path)
    assert resolve("Org/name-1.5", download=True) == folder
    assert len(asked) == 1


def test_generation_config_may_be_absent(tmp_path: Path) -> None:
    checkpoint = Checkpoint(model(tmp_path / "m"))
    assert checkpoint.generation_config == {}
    (tmp_path / "m" / "generation_config.json").write_text('{"top_k": 20}')
    assert Checkpoint(tmp_path / "m").generation_config == {"top_k": 20}


def test_other_files_are_read_with_a_limit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(model(tmp_path / "m"))
    assert checkpoint.read("tokenizer.json", 100) is None
    (tmp_path / "m" / "tokenizer.json").write_bytes(b"x" * 100)
    assert checkpoint.read("tokenizer.json", 100) == b"x" * 100
    with pytest.raises(CheckpointError, match="100 bytes, at most 99"):
        checkpoint.read("tokenizer.json", 99)
    with pytest.raises(CheckpointError, match="plain file name"):
        checkpoint.read("../m/tokenizer.json", 100)


def test_opening_a_checkpoint_imports_nothing_heavy(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    code = (
        "import sys; from pio.loading.checkpoint import Checkpoint, resolve; c = Checkpoint(resolve(sys.argv[1]));"
        "assert c.config and len(c.weights()) == 1;"
        "heavy = {'numba', 'numpy', 'huggingface_hub', 'tokenizers', 'pydantic', 'jinja2', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    root = str(Path(checkpoint_module.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("nested", [{"model_type": "qwen3", "a": [1, {"b": None}]}, {}])
def test_config_is_the_parsed_object(nested: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(nested))
    assert Checkpoint(tmp_path / "m").config == nested
