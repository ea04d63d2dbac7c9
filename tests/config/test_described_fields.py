"""Descriptions of fields in JSON schemas, against those that pydantic itself reads off the source."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import Field, TypeAdapter

from pio.config.decoder import DecoderConfig
from pio.config.described_fields import DescribedFields, field_texts
from pio.config.runtime import RuntimeConfig
from pio.engine.sampling_params import SamplingParams
from pio.models.qwen3_coder_30b_a3b_instruct.config import Qwen3MoeConfig
from pio.plugin.manifest import PluginManifest

MODELS = [RuntimeConfig, SamplingParams, PluginManifest, DecoderConfig, Qwen3MoeConfig]


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


@pytest.mark.parametrize("model", MODELS[:4])
def test_descriptions_are_those_of_pydantic(tmp_path: Path, model: Any) -> None:
    source = Path(sys.modules[model.__module__].__file__ or "").read_text("utf-8")
    twin = source.replace("(DescribedFields", "(BaseModel").replace(
        "ConfigDict(", "ConfigDict(use_attribute_docstrings=True, "
    )
    twin = twin.replace("from pydantic import", "from pydantic import BaseModel\nfrom pydantic import", 1)
    assert twin.count("use_attribute_docstrings=True") == 1
    path = tmp_path / "module_of_twins.py"
    path.write_text(twin, "utf-8")
    expected = getattr(imported(path), model.__name__).model_json_schema()
    assert model.model_json_schema() == expected
    assert any("description" in field for field in expected["properties"].values())


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_described(model: Any) -> None:
    fields = model.model_json_schema()["properties"]
    assert fields.keys() <= model.model_fields.keys()
    assert [name for name, field in fields.items() if not field.get("description")] == []
    assert fields.get("seed", {}).get("description", "The same seed").startswith("The same seed")


class Animal(DescribedFields):
    legs: int = 4
    """How many it walks on."""

    name: str = Field(default="", description="What it is called.")
    """Not this."""

    plain: bool = False


class Bird(Animal):
    """Flies."""

    legs: int = 2
    """Two,
    always."""

    wings: int = 2
    """How many it flies with."""


def test_a_class_has_the_texts_of_those_it_derives_from_and_its_own() -> None:
    schema = Bird.model_json_schema()
    found = {name: field.get("description") for name, field in schema["properties"].items()}
    assert found == {
        "legs": "Two,\nalways.",
        "name": "What it is called.",
        "plain": None,
        "wings": "How many it flies with.",
    }
    assert schema["description"] == "Flies."
    inside = TypeAdapter(list[Bird]).json_schema()["$defs"]["Bird"]
    assert inside == schema


def test_a_class_without_source_has_no_descriptions() -> None:
    space: dict[str, Any] = {"DescribedFields": DescribedFields, "__name__": "nowhere"}
    exec('class Ghost(DescribedFields):\n    size: int = 1\n    """Text."""', space)
    assert "description" not in space["Ghost"].model_json_schema()["properties"]["size"]


def test_no_source_is_read_when_the_classes_are_made() -> None:
    modules = ", ".join({model.__module__ for model in MODELS})
    code = f"import linecache, {modules}; print([name for name in linecache.cache if 'pio' in name])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"


def test_a_class_whose_source_is_another_by_now_has_no_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("class Bird(:", "    legs: int\n  wings: int", "# gone", ""):
        monkeypatch.setattr("inspect.getsource", lambda _, text=text: text)
        assert field_texts(Bird) == {}
