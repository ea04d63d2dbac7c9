"""Two models have one identity only where they compute the same bits."""

from __future__ import annotations

import email.message
import logging
import sys
import threading
import types
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import pytest

from pio.config.runtime import RuntimeConfig
from pio.device import default_device
from pio.errors import ConfigError
from pio.plugin import TextModelPlugin
from pio.plugin.model_identity import INDIFFERENT, identity

COUNTED = {"dtype", "quantize", "quantize_policy", "activation_dtype", "cuda_kernels"}


class Weights:
    """Weights with a digest."""

    def __init__(self, digest: str = "a") -> None:
        self._digest = digest

    def digest(self, notes: Path, check: Any) -> str:
        return self._digest


def told(
    tmp_path: Path, plugin: type = TextModelPlugin, config: Any = None, weights: Any = None, **options: Any
) -> bytes:
    runtime, config = RuntimeConfig.from_options(**options), config or {"a": 1, "b": 2}
    device = default_device()
    return identity(plugin, config, weights or Weights(), runtime, tmp_path, lambda: None, device)


def test_options_are_listed_as_indifferent_or_count(tmp_path: Path) -> None:
    assert RuntimeConfig.model_fields.keys() >= INDIFFERENT | COUNTED and not INDIFFERENT & COUNTED
    plain = told(tmp_path)
    counted = ({"quantize": "int8"}, {"dtype": "float32"}, {"activation_dtype": "bfloat16"}, {"cuda_kernels": "-norm"})
    for options in counted:
        assert told(tmp_path, **options) != plain
    assert told(tmp_path, quantize="int4") != told(tmp_path, quantize="int4", quantize_policy="uniform")
    same = {
        "threads": 1,
        "prefill_chunk": 7,
        "context_length": 100,
        "mmap": False,
        "speculation": "off",
        "device": "cpu",
    }
    assert told(tmp_path, **same) == plain


def test_weights_config_and_plugin_count(tmp_path: Path) -> None:
    plain = told(tmp_path)
    assert told(tmp_path, config={"b": 2, "a": 1}) == plain, "the order of config.json is none of the model"
    assert told(tmp_path, config={"a": 1, "b": 2.5}) != plain
    assert told(tmp_path, weights=Weights("b")) != plain
    made = [
        type(name, (TextModelPlugin,), {"__module__": module})
        for name, module in (("A", "pio.x"), ("B", "pio.x"), ("A", "pio.y"))
    ]
    assert len({plain, *(told(tmp_path, plugin) for plugin in made)}) == 4


def test_a_class_with_bases_of_python_itself(tmp_path: Path) -> None:
    """Which have no sources that count: single modules, packages, and what is no file at all."""
    fields = {"__module__": "pio.x"}
    plain = told(tmp_path, type("Mixed", (TextModelPlugin,), fields))
    for base in (Generic[TypeVar("T")], logging.Filter, email.message.Message, threading.local):
        made = types.new_class("Mixed", (TextModelPlugin, base), exec_body=lambda body: body.update(fields))
        assert told(tmp_path, made) == plain


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package of somebody's plugin, in files."""
    folder = tmp_path / "walnut"
    folder.mkdir()
    (folder / "__init__.py").write_text("x = 1\n", "utf-8")
    module = ModuleType("walnut")
    module.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "walnut", module)
    return module


def test_sources_of_other_packages_count(tmp_path: Path, package: ModuleType) -> None:
    from pio.kernels import _image

    plugin = type("Plugin", (TextModelPlugin,), {"__module__": "walnut.plugin"})
    before = told(tmp_path, plugin)
    assert told(tmp_path, plugin) == before
    (Path(package.__path__[0]) / "deep.py").write_text("y = 2\n", "utf-8")
    _image.package_stamp.cache_clear()  # as in a new process
    assert told(tmp_path, plugin) != before


def test_code_without_sources_is_refused(tmp_path: Path) -> None:
    plugin = type("Plugin", (TextModelPlugin,), {"__module__": "nowhere_at_all.plugin"})
    with pytest.raises(ConfigError, match="there are no sources of nowhere_at_all"):
        told(tmp_path, plugin)
