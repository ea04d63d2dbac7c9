"""Workloads of a plugin's folder: read, checked, chosen, cut to a context and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pio.benchmarks.workloads import FILE, Workload, Workloads
from pio.cli.app import make_app
from pio.cli.warmup import TINY
from pio.errors import ConfigError
from pio.plugin import registry

ONE = {"name": "note", "prompt_tokens": 7, "new_tokens": 3, "requests": 2}
OTHER = {"name": "draft", "prompt_tokens": 5, "new_tokens": 1, "requests": 1}


def content(*workloads: Any, **more: Any) -> str:
    return json.dumps({"description": "Some.", "workloads": list(workloads), **more})


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "workloads.json").write_text(content(ONE, OTHER), "utf-8")
    found = Workloads.read(tmp_path / "workloads.json")
    assert [workload.model_dump() for workload in found.workloads] == [ONE, OTHER]
    assert [workload.name for workload in found.chosen([])] == ["note", "draft"]
    assert [workload.name for workload in found.chosen(["draft"])] == ["draft"]
    with pytest.raises(ConfigError, match="no workload 'x'; there are note, draft"):
        found.chosen(["note", "x"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting"),
        ("[]", "the file: "),
        ("[" * 100_000, "recursion"),
        (content(), "workloads: "),
        (content(ONE, speed=3), "speed: "),
        (content(OTHER, {**ONE, "requests": 0}), "workloads.1.requests: "),
        (content({**ONE, "prompt_tokens": 1.5}), "workloads.0.prompt_tokens: "),
        (content({**ONE, "new_tokens": 1 << 30}), "workloads.0.new_tokens: "),
        (content({**ONE, "name": ""}), "workloads.0.name: "),
        (content({"name": "note"}), "workloads.0.prompt_tokens: "),
        (content(ONE, OTHER, ONE), "workloads: 2 of them are called 'note'"),
    ],
)
def test_a_damaged_file_is_refused_by_field(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / FILE
    path.parent.mkdir()
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="correct the plugin's workloads") as caught:
        Workloads.of_plugin(tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


def test_every_plugin_of_pio_has_workloads() -> None:
    for manifest in registry.manifests().values():
        found = Workloads.of_plugin(registry.folder_of(manifest))
        assert found is not None and len(found.workloads) >= 4


@pytest.mark.parametrize(("prompt", "new", "cut"), [(100, 28, (100, 28)), (200, 28, (100, 28)), (9, 500, (9, 64))])
def test_a_context_cuts(prompt: int, new: int, cut: tuple[int, int]) -> None:
    fitted = Workload(name="x", prompt_tokens=prompt, new_tokens=new, requests=3).fitted(128)
    assert (fitted.prompt_tokens, fitted.new_tokens, fitted.requests) == (*cut, 3)


def bench(*arguments: object) -> Any:
    options = ("--rounds", 2, "--buffer-mb", 1, "--json")
    ran = CliRunner().invoke(make_app(), ["bench", *map(str, (*arguments, *options))])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout), ran.stderr


def test_a_workload_is_run() -> None:
    report, said = bench("--workload", "short prompt", "--workload", "eight at once", "--context-length", 64)
    assert said == ""
    short, eight = report["workloads"]
    fields = ("name", "prompt_tokens", "new_tokens", "requests")
    assert [short[field] for field in fields] == ["short prompt", 20, 32, 1]
    assert [eight[field] for field in fields] == ["eight at once", 32, 32, 8]
    for work in (short, eight):
        assert 0 < work["time_to_first_token"] < work["seconds"]
        assert len(work["speed"]["rounds"]) == 2
        tokens = work["requests"] * work["new_tokens"]
        assert min(work["speed"]["rounds"]) <= tokens / work["seconds"] <= max(work["speed"]["rounds"])


def test_it_is_said_that_a_plugin_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "folder_of", lambda manifest: tmp_path)
    raw = {"model_type": "qwen3", **TINY}
    (tmp_path / "config.json").write_text(json.dumps(raw), "utf-8")
    report, said = bench("--config", tmp_path, "--workload", "prefill", "--context-length", 32)
    assert "note: plugin qwen3_" in said and said.endswith("every model: question, prefill, four at once\n")
    assert [(work["name"], work["prompt_tokens"]) for work in report["workloads"]] == [("prefill", 31)]


def test_no_workload_beside_a_shape() -> None:
    ran = CliRunner().invoke(make_app(), ["bench", "--workload", "prefill", "--depth", "3"])
    assert ran.exit_code == 1 and "--workload has a shape of its own" in ran.stderr
