"""The checker names what a plugin does wrong, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from third_party import CONFIG, MANIFEST, NAME, PLUGIN, SCALING, installed

import pio
from pio.benchmarks.workloads import Workloads
from pio.errors import ConfigError
from pio.plugin import registry
from pio.testing.check_plugin import check_plugin
from pio.testing.random_checkpoint import write_random_checkpoint


def findings(folder: Path, by: Any = NAME, **broken: Any) -> list[str]:
    with installed(folder, **broken) as own:
        return [f"{f.where}: {f.problem}" for f in check_plugin(own if by is Path else by)]


def one(found: list[str], *words: str) -> None:
    assert len(found) == 1 and all(word in found[0] for word in words), found


@pytest.mark.parametrize("name", sorted(registry.manifests()))
def test_installed_plugins_comply(name: str) -> None:
    assert check_plugin(name) == []


def test_a_sound_plugin_has_no_findings(tmp_path: Path) -> None:
    assert findings(tmp_path / "a") == []
    assert findings(tmp_path / "b", Path) == []


def test_a_plugin_of_another_package_loads_through_its_entry_point(tmp_path: Path) -> None:
    with installed(tmp_path / "site"):
        assert NAME in registry.manifests()
        folder = write_random_checkpoint(tmp_path / "model", CONFIG, tokenizer=False)
        with pio.load(folder) as model:
            assert model.metadata.name == NAME and model.metadata.listed
            answer = model.generate([3, 100, 7], temperature=0.0, max_new_tokens=5, ignore_eos=True)
            assert len(answer.token_ids) == 5 and set(answer.token_ids) < set(range(CONFIG["vocab_size"]))
    assert NAME not in registry.manifests()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "oak"}, ["name", "'oak'", "'acorn'"]),
        ({"version": "one"}, ["version", "'one'"]),
        ({"factory": "acorn_models.acorn.plugin:make"}, ["factory", "'make'", "create_acorn_plugin"]),
        ({"plugin": "acorn_models.acorn.plugin:Missing"}, ["plugin_manifest.json", "Missing", "cannot be imported"]),
        ({"plugin": "pio.tensor:Tensor"}, ["pio.tensor:Tensor", "subclass of pio.TextModelPlugin"]),
        ({"modalities": []}, ["modalities"]),
        ({"modalities": ["text", "image"]}, ["media_processor", "none of its own"]),
        ({"parameters": -1}, ["parameters", "greater than 0"]),
        ({"surprise": 1}, ["surprise"]),
        ({"components": {k: v for k, v in MANIFEST["components"].items() if k != "mlp"}}, ["components", "'mlp'"]),
        ({"components": {**MANIFEST["components"], "norm": "pio.layers.norm:Nrom"}}, ["norm", "Nrom"]),
        ({"components": {**MANIFEST["components"], "norm": "pio.layers.linear:Linear"}}, ["README.md", "Linear"]),
    ],
)
def test_a_wrong_manifest(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    found = findings(tmp_path, Path, manifest={**MANIFEST, **change})
    assert [f for f in found if all(word in f for word in words)], found


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    def build_model(", "    def build_something(", ["build_model", "abstract"]),
        ('manifest_name: ClassVar[str] = "acorn"', 'manifest_name: ClassVar[str] = "oak"', ["manifest_name", "'oak'"]),
        ("config_class: ClassVar[type[DecoderConfig]] = AcornConfig", "config_class = dict", ["config_class"]),
        ("    def build_model(", "    infer = None\n\n    def build_model(", [".infer", "expected a method"]),
        (
            "    def build_model(",
            "    def tokenize(self): return []\n\n    def build_model(",
            [".tokenize", "does not take text"],
        ),
        ("plugin.initialize(**options)", "pass", ["no_such_option", "ConfigError"]),
        ("    plugin = AcornPlugin()", "    plugin = AcornPlugin(1)", ["create_acorn_plugin", "TypeError"]),
        ("    return plugin\n", "    return None\n", ["made a NoneType"]),
        (
            "    def build_model(",
            "    def cleanup(self): return None\n\n    def build_model(",
            [".cleanup", "did not return True"],
        ),
        (
            "    def build_model(",
            "    def supports_config(self, config): return True\n\n    def build_model(",
            [".supports_config", "is True for {}"],
        ),
        (
            "    def build_model(",
            "    def media_processor(self, *arguments): return None\n\n    def build_model(",
            [".media_processor", "found one", "modalities"],
        ),
        (
            "    def build_model(",
            "    def generate_text(self, prompt, params=None, **fields): return ''\n\n    def build_model(",
            [".generate_text", "before load_model"],
        ),
    ],
)
def test_a_wrong_class(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in PLUGIN
    found = findings(tmp_path, plugin=PLUGIN.replace(old, new))
    assert [f for f in found if all(word in f for word in words)], found


@pytest.mark.parametrize(
    "line", ["from pio.engine.handle import Handle", "import pio.kernels.linear", "from pio.models import qwen3_0_6b"]
)
def test_an_import_that_reaches_too_far(tmp_path: Path, line: str) -> None:
    one(findings(tmp_path, plugin=line + "\n" + PLUGIN), "plugin.py:1", "builds on")


@pytest.mark.parametrize(
    "line", ["import pio", "from pio import Tensor, ops, UnsupportedModelError", "from pio.ops.kernels import kernel"]
)
def test_public_names_may_be_imported(tmp_path: Path, line: str) -> None:
    assert findings(tmp_path, plugin=line + "\n" + PLUGIN) == []


BROKEN = [
    ("plugin.initialize(**options)", "plugin.initialise(**options)", ["AttributeError", "initialise"]),
    ("    plugin = AcornPlugin()", "    plugin = AcornPlugin(1)", ["TypeError", "create_acorn_plugin"]),
    ("    plugin = AcornPlugin()", "    plugin = AkornPlugin()", ["NameError", "AkornPlugin"]),
    ("def create_acorn_plugin", "def create_plugin", ["create_acorn_plugin", "cannot be imported"]),
    ("    def build_model(", "    def build_something(", ["TypeError", "abstract", "build_model"]),
    ("    return plugin\n", "    return None\n", ["made None", "TextModelPlugin"]),
    ('    manifest_name: ClassVar[str] = "acorn"\n', "", ["manifest_name", "None"]),
    ('ClassVar[str] = "acorn"', 'ClassVar[str] = "oak"', ["manifest_name", "'oak'"]),
    ("    config_class: ClassVar[type[DecoderConfig]] = AcornConfig\n", "", ["config_class", "DecoderConfig"]),
    ("[DecoderConfig]] = AcornConfig", "[DecoderConfig]] = dict", ["config_class", "DecoderConfig"]),
    (
        'model_type: Literal["acorn"]',
        'model_type: Literal["acorn"]\n    experts = 3',
        ["cannot be imported", "experts", "annotat"],
    ),
    ("class AcornPlugin(TextModelPlugin):", "class AcornPlugin(TextModelPlugin)", ["SyntaxError", "plugin.py"]),
    ("from pio.layers.mlp import SwiGLU", "from pio.layers.mlp import SwigLU", ["cannot be imported", "SwigLU"]),
    ("from typing import Any", "1 / 0\nfrom typing import Any", ["cannot be imported", "ZeroDivisionError"]),
]


@pytest.mark.parametrize(("old", "new", "words"), BROKEN)
def test_a_broken_plugin_is_named_when_it_is_to_load(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    with installed(tmp_path / "sound"):
        folder = write_random_checkpoint(tmp_path / "model", CONFIG, tokenizer=False)
    assert old in PLUGIN
    with installed(tmp_path / "broken", plugin=PLUGIN.replace(old, new, 1)):
        assert check_plugin(NAME)
        for load in (pio.load, lambda path: pio.quantize(path, tmp_path / "packed")):
            with pytest.raises(ConfigError) as caught:
                load(folder)
            message = str(caught.value)
            assert all(word in message for word in [*words, "acorn"]) and "\n" not in message, message


def test_a_kernel_of_a_plugin_without_an_annotation(tmp_path: Path) -> None:
    kernels = SCALING["kernels.py"].replace("n: int, part", "n, part")
    assert kernels != SCALING["kernels.py"]
    with installed(tmp_path, files=SCALING | {"kernels.py": kernels}):
        found = check_plugin(NAME)
        assert found and all("kernel scale_parts: parameter n has no annotation" in f.problem for f in found), found


def test_two_plugins_of_one_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with installed(tmp_path, manifest={**MANIFEST, "name": "qwen3_0_6b"}) as folder:
        assert registry.manifests()["qwen3_0_6b"].plugin.startswith("pio.models")
        assert f"{folder / 'plugin_manifest.json'}: the name qwen3_0_6b is taken" in caplog.text


def test_a_class_whose_manifest_is_not_installed() -> None:
    class Walnut(pio.TextModelPlugin):
        manifest_name = "walnut"
        build_model = None  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=r"Walnut.manifest_name is 'walnut'.*installed are .*qwen3_0_6b"):
        _ = Walnut().manifest


def test_a_plugin_without_readme_or_tests(tmp_path: Path) -> None:
    with installed(tmp_path) as folder:
        (folder / "README.md").unlink()
        (folder / "tests" / "test_acorn.py").unlink()
        assert sorted(f.where for f in check_plugin(NAME)) == ["README.md", "tests"]


def test_an_unknown_plugin() -> None:
    with pytest.raises(ConfigError, match=r"'walnut' is not installed; installed are .*qwen3_0_6b"):
        check_plugin("walnut")
    with pytest.raises(ConfigError, match="no folder"):
        check_plugin(Path("walnut"))


def test_a_plugin_of_another_package_may_have_workloads(tmp_path: Path) -> None:
    with installed(tmp_path) as folder:
        manifest = registry.manifests()[NAME]
        assert registry.folder_of(manifest) == folder
        assert Workloads.of_plugin(folder) is None
    with pytest.raises(ConfigError, match=f"plugin {NAME} has no folder any more"):
        registry.folder_of(manifest)
