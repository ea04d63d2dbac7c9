"""What the documentation says is true: every Python example runs, every command and file exists."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling_model import make_calling_model

from pio.config.runtime import PROFILES, RuntimeConfig
from pio.device import Device
from pio.engine.sampling_params import SamplingParams
from pio.errors import DeviceError

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("pio/**/README.md"))]
EXECUTED = [page for page in PAGES if page.parent.parent.name != "models"]  # those need the published weights


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def examples() -> Iterator[Any]:
    for page in EXECUTED:
        for i, code in enumerate(blocks(page, "python")):
            yield pytest.param(page, code, id=f"{page.stem}-{i}")


def cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split(" | ")]


@pytest.fixture
def seeing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with pictures, and in the Hugging Face cache stand-ins for models that see and that call tools."""
    golden, commit = ROOT / "tests/golden/qwen3_vl/video_bf16", "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "cache" / "models--Qwen--Qwen3-VL-2B-Instruct"
    shutil.copytree(golden, repo / "snapshots" / commit, ignore=shutil.ignore_patterns("expected", "pictures"))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit, "utf-8")
    calling = tmp_path / "cache" / "models--Qwen--Qwen3-0.6B"  # the demo model, with a template that knows tools
    make_calling_model(calling / "snapshots" / commit)
    (calling / "refs").mkdir()
    (calling / "refs" / "main").write_text(commit, "utf-8")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    shutil.copytree(golden / "pictures", tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize(("page", "code"), list(examples()))
@pytest.mark.usefixtures("seeing")
def test_an_example_runs(page: Path, code: str) -> None:
    if 'device="cuda"' in code:
        try:
            Device("cuda")
        except DeviceError as error:
            pytest.skip(f"needs an NVIDIA GPU: {error}")
    exec(compile(code, str(page), "exec"), {"__name__": "example"})


def test_the_first_example_prints_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks(README, "python")[0], str(README), "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    for shown in blocks(README, "text"):
        assert printed.startswith(shown)


def test_nobody_is_sent_to_a_package_of_the_same_name() -> None:
    """Libraries are named themselves, for the public registry has somebody else's "pio"."""
    for path in [*PAGES, *(ROOT / "pio").rglob("*.py")]:
        assert not re.search(r"pip install ['\"]?pio\b", path.read_text("utf-8")), path


def test_the_readme_has_examples() -> None:
    assert len(blocks(README, "python")) >= 3 and len(blocks(README, "sh")) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_python_examples_compile_everywhere() -> None:
    for page in PAGES:
        for code in blocks(page, "python"):
            compile(code, str(page), "exec")


def test_commands_exist() -> None:
    import typer.main

    from pio.cli.app import make_app

    commands: dict[str, Any] = vars(typer.main.get_command(make_app()))["commands"]
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    used = re.findall(rf"(?<![\w.])pio ((?:{'|'.join(commands)})\b[^`\n&#]*)", text)
    assert {line.split()[0] for line in used} >= {"generate", "chat", "bench", "doctor", "download", "models", "warmup"}
    assert {name.split()[0] for name in re.findall(r"`pio ([a-z]+)", text)} <= commands.keys()
    for line in used:
        name, *words = shlex.split(line.rstrip(" .,;:)|"))
        known = {flag for parameter in commands[name].params for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_the_table_of_profiles() -> None:
    rows = {row[0]: row[1:] for line in README.read_text("utf-8").splitlines() if (row := cells(line))}
    names = rows["profile"]
    for profile in PROFILES:
        config = RuntimeConfig.from_options(profile=profile)
        assert rows[profile] == [str(getattr(config, name)) for name in names]
        assert set(PROFILES[profile]) <= set(names)


@pytest.mark.parametrize("model", [RuntimeConfig, SamplingParams])
def test_every_field_is_documented_with_its_default(model: Any) -> None:
    rows = {
        row[0]: row
        for line in (ROOT / "docs" / "configuration.md").read_text("utf-8").splitlines()
        if (row := cells(line))
    }
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        assert rows[name][1] == (repr(default) if default != () else "()"), name


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8").replace(" --quiet", "")
    first, tests = (block.strip() for block in blocks(README, "sh")[:2])
    assert first == "pip install . && pio generate" and "pip install . && timeout 300 pio generate" in script
    assert tests in script
    environments = re.findall(r'-m venv "\$scratch/(\w+)"', script)
    assert environments == ["venv", "first", "tests", "cuda"]  # what the README names, and an extra, in their own
