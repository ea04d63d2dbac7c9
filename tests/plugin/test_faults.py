"""What fails in a plugin of another package, or beside it: who is blamed, by which line, and what else is not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FunctionType

import pytest
from third_party import CONFIG, changed, installed

import pio
from pio.plugin import factory, registry
from pio.testing.random_checkpoint import write_random_checkpoint

CONFIG_HOOK = """
    @classmethod
    def _fill(cls, fields):
        fields.nothing_of_that_name
        super()._fill(fields)

    model_type: Literal"""
WEIGHTS_HOOK = """
    def open_weights(self, checkpoint):
        return checkpoint.nothing_of_that_name

    def build_model("""

OWN_NAMES = """
class Workspace:
    def __init__(self): ...
    def __call__(self): ...


class AcornPlugin("""
LACKING = """
class Cache:
    block_size, num_blocks, nbytes, state_bytes = 16, 8, 0, 0

    def layer(self, index): ...

    def free(self):
        type(self).freed = True


class AcornPlugin("""
CACHE = "PagedKVCache(2, tokens, c.num_key_value_heads, c.head_dim, dtype, budget=budget)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with installed(tmp_path_factory.mktemp("site")):
        return write_random_checkpoint(tmp_path_factory.mktemp("model") / "acorn", CONFIG, tokenizer=False)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"    model_type: Literal": CONFIG_HOOK}, r"AcornConfig\._fill"),
        ({"    def build_model(": WEIGHTS_HOOK}, r"AcornPlugin\.open_weights"),
        ({"c, eps = ": "config.nothing_of_that_name; c, eps = "}, r"AcornPlugin\.build_model"),
    ],
    ids=["config", "weights", "model"],
)
def test_a_fault_of_a_plugin_names_its_line(tmp_path: Path, folder: Path, change: dict[str, str], where: str) -> None:
    says = rf"^plugin acorn failed at plugin\.py:\d+, {where}: AttributeError: .*; if it was written for an"
    with installed(tmp_path / "site", plugin=changed(change)):
        with pytest.raises(pio.ConfigError, match=says):
            pio.load(folder)
        with pytest.raises(pio.ConfigError, match=says):
            pio.quantize(folder, tmp_path / "made")


def test_what_fails_while_it_is_imported_or_made_names_its_line(tmp_path: Path, folder: Path) -> None:
    importing = {"from pio.plugin import": "import pio.device\npio.device.MemoryBudget\nfrom pio.plugin import"}
    making = {"    plugin = AcornPlugin()": "    from pio.device import MemoryBudget\n    plugin = AcornPlugin()"}
    for step, (changes, where) in enumerate(
        ((importing, r"plugin\.py:\d+, <module>"), (making, r"plugin\.py:\d+, create_acorn_plugin"))
    ):
        with (
            installed(tmp_path / str(step), plugin=changed(changes)),
            pytest.raises(pio.ConfigError, match=rf"acorn.*{where}.*MemoryBudget is imported from pio\.memory\.budget"),
        ):
            pio.load(folder)


def test_a_fault_inside_of_pio_is_not_said_to_be_of_an_earlier_version(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("RotaryEmbedding has 'threads', 'held' and 'records' that are exact in Views")

    monkeypatch.setattr("pio.layers.rotary.RotaryEmbedding.__init__", broken)
    says = r"^plugin acorn failed at plugin\.py:\d+, AcornPlugin\.build_model: TypeError: .*; if it was written for"
    with installed(tmp_path / "site"), pytest.raises(pio.ConfigError, match=says):
        pio.load(folder)


def test_code_of_neither_is_not_the_plugin(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AttributeError("'Source' object has no attribute 'held'")

    elsewhere = FunctionType(fails.__code__, {**globals(), "__name__": "numpy.like"})  # code that pio itself calls
    monkeypatch.setattr("pio.plugin.loaded_model.Prompts", elsewhere)
    with installed(tmp_path / "site"), pytest.raises(AttributeError, match="held"):
        pio.load(folder)


@pytest.mark.parametrize(
    "line",
    ["c.threads", "Workspace(1)", "Workspace()(1)", "Workspace().held", "Workspace().exact", "(lambda: 0)(threads=1)"],
)
def test_what_a_plugin_calls_alike_is_its_own(tmp_path: Path, folder: Path, line: str) -> None:
    plugin = changed({"class AcornPlugin(": OWN_NAMES, "c, eps = ": f"c = config; {line}; c, eps = "})
    with (
        installed(tmp_path / "site", plugin=plugin),
        pytest.raises(pio.ConfigError, match=r"^plugin acorn failed at plugin\.py:.*; if it was written for an"),
    ):
        pio.load(folder)


def test_a_cache_that_is_refused_is_freed(tmp_path: Path, folder: Path) -> None:
    with installed(tmp_path / "site", plugin=changed({CACHE: "Cache()", "class AcornPlugin(": LACKING})):
        with pytest.raises(pio.ConfigError, match="Cache lacks format, block_bytes, state_slots, copy_block"):
            pio.load(folder)
        assert sys.modules["acorn_models.acorn.plugin"].Cache.freed is True


def test_a_fault_of_pio_itself_is_not_blamed_on_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = registry.manifests()["qwen3_0_6b"]
    monkeypatch.setattr("pio.layers.grouped_query_decoder.Decoder.assemble", 3)
    with pytest.raises(TypeError, match="not callable"):
        factory.make(manifest, path="demo").load_model()
