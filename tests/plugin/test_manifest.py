"""Manifests are read strictly, and the message names the file and the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pio.benchmarks.workloads import FILE, Workloads
from pio.errors import ConfigError
from pio.plugin import registry
from pio.plugin.manifest import AREAS, MANIFEST, PluginManifest, import_object

MODELS = Path(registry.__file__).parents[1] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob(f"*/{MANIFEST}"))


def write(folder: Path, content: str) -> Path:
    path = folder / MANIFEST
    path.write_text(content, "utf-8")
    return path


def sound() -> dict[str, Any]:
    return json.loads((FOLDERS[0] / MANIFEST).read_text("utf-8"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_plugin_folder_is_complete(folder: Path) -> None:
    manifest = PluginManifest.read(folder / MANIFEST)
    assert manifest.name == folder.name
    assert set(AREAS) <= manifest.components.keys()
    assert {path.name for path in folder.glob("*.py")} >= {"__init__.py", "config.py", "model.py", "plugin.py"}
    assert len(Workloads.read(folder / FILE).workloads) >= 4


def test_a_readme_shows_the_same_components_as_the_manifest() -> None:
    for folder in FOLDERS:
        text = (folder / "README.md").read_text("utf-8")
        for area, path in PluginManifest.read(folder / MANIFEST).components.items():
            assert f"| {area} | `{path}` |" in text, folder.name


def test_a_manifest_round_trips(tmp_path: Path) -> None:
    manifest = PluginManifest.read(FOLDERS[0] / MANIFEST)
    assert PluginManifest.read(write(tmp_path, manifest.model_dump_json())) == manifest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Bad Name"}, "name"),
        ({"model_types": []}, "model_types"),
        ({"parameters": 0}, "parameters"),
        ({"memory_bytes": "much"}, "memory_bytes"),
        ({"dimensions": {"hidden_size": "wide"}}, "dimensions.hidden_size"),
        ({"colour": "green"}, "colour"),
        ({"factory": None}, "factory"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = write(tmp_path, json.dumps({**sound(), **change}))
    with pytest.raises(ConfigError) as caught:
        PluginManifest.read(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    for field in ("name", "factory", "plugin", "components", "modalities"):
        path = write(tmp_path, json.dumps({k: v for k, v in sound().items() if k != field}))
        with pytest.raises(ConfigError, match=field):
            PluginManifest.read(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "\0"])
def test_a_file_that_is_no_manifest(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError, match=MANIFEST):
        PluginManifest.read(write(tmp_path, content))
    with pytest.raises(ConfigError, match="absent"):
        PluginManifest.read(tmp_path / "absent.json")


def test_lists_compares_every_dimension() -> None:
    manifest = PluginManifest.read(FOLDERS[0] / MANIFEST)
    assert manifest.lists({**manifest.dimensions, "anything": 1})
    for name in manifest.dimensions:
        assert not manifest.lists({**manifest.dimensions, name: 1})
        assert not manifest.lists({k: v for k, v in manifest.dimensions.items() if k != name})


@pytest.mark.parametrize(
    "path", ["", "pio", "pio:", "pio.nothing:load", "pio.tensor:Tensr", ":x", "pio..tensor:Tensor"]
)
def test_an_object_that_cannot_be_imported(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be imported"):
        import_object(path)


def test_an_object_that_can() -> None:
    assert import_object("pio.plugin.manifest:import_object") is import_object
