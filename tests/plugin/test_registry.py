"""The registry finds plugins without importing them and chooses the one that fits."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pio.errors import ConfigError, UnsupportedModelError
from pio.plugin import registry

SMALL, LARGE = "qwen3_0_6b", "qwen3_4b_instruct_2507"


def config(layers: int, width: int, inner: int = 1000, **fields: Any) -> dict[str, Any]:
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner}
    return {"model_type": "qwen3", **sizes, **fields}


def chosen(raw: dict[str, Any], plugin: str | None = None) -> tuple[str, bool]:
    manifest, listed = registry.choose(raw, plugin)
    return manifest.name, listed


def test_both_plugins_are_found_without_importing_them() -> None:
    code = """if True:
        import sys
        from pio.plugin import registry
        print(*registry.manifests())
        print([name for name in sys.modules if name.startswith("pio.models.") or name == "numba"])
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    names, loaded = ran.stdout.splitlines()
    assert {SMALL, LARGE} <= set(names.split()) and loaded == "[]"


def test_a_listed_model_gets_its_own_plugin() -> None:
    assert chosen(config(28, 1024, 3072)) == (SMALL, True)
    assert chosen(config(36, 2560, 9728)) == (LARGE, True)
    assert chosen(config(36, 2560, 9728), LARGE) == (LARGE, True)


@pytest.mark.parametrize(
    ("layers", "width", "expected"),
    [(6, 256, SMALL), (28, 1024, SMALL), (28, 2048, LARGE), (36, 2048, LARGE), (36, 4096, LARGE), (64, 5120, LARGE)],
)
def test_another_size_gets_the_nearest_plugin(layers: int, width: int, expected: str) -> None:
    assert chosen(config(layers, width)) == (expected, False)


def test_a_named_plugin_settles_it() -> None:
    assert chosen(config(28, 1024, 3072), LARGE) == (LARGE, False)
    assert chosen(config(64, 5120), SMALL) == (SMALL, False)


def test_sizes_that_are_no_sizes_are_left_to_the_config_class() -> None:
    for width in (None, 0, -5, "wide", 1.5, 10**400):
        name, listed = chosen(config(4, 1) | {"hidden_size": width})
        assert name in (SMALL, LARGE) and not listed


def test_an_unknown_architecture() -> None:
    for model_type in ("mamba", None, 7, ["qwen3"], {"a": 1}, "x" * 10_000):
        with pytest.raises(UnsupportedModelError, match=r"model_type is .*qwen3") as caught:
            registry.choose({"model_type": model_type})
        assert len(str(caught.value)) < 400
    with pytest.raises(UnsupportedModelError, match=f"plugin {SMALL} runs qwen3"):
        registry.choose({"model_type": "mamba"}, SMALL)


@pytest.mark.parametrize("name", [SMALL, "Qwen3-0.6B", "qwen3-0.6b", "qwen/qwen3-0.6b"])
def test_a_name_that_is_nearly_a_repo(name: str) -> None:
    assert registry.meant(name) == "Qwen/Qwen3-0.6B"


def test_a_name_that_means_nothing() -> None:
    for name in ("Qwen/Qwen3-0.6B", "demo", "", "Qwen3", "other/Qwen3-0.6B"):
        assert registry.meant(name) is None


def test_an_unknown_plugin() -> None:
    with pytest.raises(ConfigError, match=f"'walnut' is not installed; installed are .*{SMALL}"):
        registry.choose(config(28, 1024, 3072), "walnut")


def test_a_broken_plugin_of_somebody_else_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package = tmp_path / "walnut_models"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin_manifest.json").write_text(json.dumps({"name": "walnut"}), "utf-8")
    (package / "module.py").touch()
    (tmp_path / "burnt_models").mkdir()
    (tmp_path / "burnt_models" / "__init__.py").write_text("1 / 0\n", "utf-8")
    info = tmp_path / "walnut-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: walnut\nVersion: 1\n", "utf-8")
    (info / "entry_points.txt").write_text(
        "[pio.plugins]\nwalnut = walnut_models\ngone = gone_models.sub\nlost = walnut_models.lost\n"
        "single = walnut_models.module\nburnt = burnt_models.sub\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.manifests.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "pio"):
            found = registry.manifests()
        assert {SMALL, LARGE} <= found.keys() and "walnut" not in found
        assert "plugin left out" in caplog.text and "version" in caplog.text
        for name, why in (("gone", "gone_models"), ("lost", "no package"), ("single", "no package"), ("burnt", "Zero")):
            assert any(f"plugin left out: {name}: " in m and why in m for m in caplog.messages), (name, caplog.messages)
    finally:
        registry.manifests.cache_clear()
