import json
import shutil
from pathlib import Path

import pytest

from pio.loading.checkpoint import resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Hugging Face cache with one whole model, one half downloaded and one of an unknown architecture."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for repo, kept in (("whole", ("config.json", "model.safetensors")), ("half", ("config.json",))):
        folder = tmp_path / f"models--some-org--{repo}" / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        for name in kept:
            shutil.copy(resolve("demo") / name, folder)
        reference = folder.parent.parent / "refs" / "main"
        reference.parent.mkdir()
        reference.write_text(COMMIT)
    other = shutil.copytree(tmp_path / "models--some-org--whole", tmp_path / "models--other--strange")
    (other / "snapshots" / COMMIT / "config.json").write_text('{"model_type": "strange"}')
    return tmp_path


def test_plugins_and_local_models(pio, cache):
    found = json.loads(pio("models", "--json").stdout)
    plugins = {p["name"]: p for p in found["plugins"]}
    assert plugins["qwen3_0_6b"]["source"] == "pio" and plugins["qwen3_0_6b"]["parameters"] == 596_049_920
    models = {m["name"]: (m["model_type"], m["plugin"]) for m in found["models"]}
    assert models == {
        "demo": ("qwen3", "qwen3_0_6b"),
        "some-org/whole": ("qwen3", "qwen3_0_6b"),
        "other/strange": ("strange", "none: UnsupportedModelError"),
    }


def test_tables(pio, cache):
    shown = pio("models").stdout
    for words in ("qwen3_4b_instruct_2507", "Qwen/Qwen3-0.6B", "596 M", "reasoning", "some-org/whole"):
        assert words in shown


def test_a_local_model_runs_by_its_name(pio, cache):
    ran = pio("verify", "some-org/whole")
    assert ran.exit_code == 0 and "✓ weights are numbers" in ran.stdout
    assert "tokenizer: none" in ran.stdout and "chat template: none" in ran.stdout


def test_verify_everything(pio):
    ran = pio("verify")
    assert ran.exit_code == 0 and "✗" not in ran.stdout
    for name in ("qwen3_0_6b", "qwen3_4b_instruct_2507", "demo"):
        assert f"{name}\n" in ran.stdout


def test_verify_says_what_a_model_skips(pio):
    folder = Path(__file__).parent.parent / "golden" / "glm4_moe_lite" / "as_published"
    ran = pio("verify", folder)
    assert ran.exit_code == 0
    assert "✓ tensors: all accounted for, " in ran.stdout
    stored = json.loads((folder / "model.safetensors").read_bytes()[8:].split(b"}}")[0] + b"}}")
    further = sum(name.startswith("model.layers.3.") for name in stored)
    assert further > 20 and f"; {further} skipped: layers that predict further tokens\n" in ran.stdout


def test_verify_finds_a_number_that_is_none(pio, tmp_path):
    folder = shutil.copytree(resolve("demo"), tmp_path / "model")
    with (folder / "model.safetensors").open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        name, entry = next((k, v) for k, v in json.loads(file.read(length)).items() if "q_proj" in k)
        file.seek(8 + length + entry["data_offsets"][0] + 2 * 5)
        file.write(b"\xc0\x7f")  # NaN
    ran = pio("verify", folder)
    assert ran.exit_code == 1
    assert f"✗ weights are numbers: {folder}/model.safetensors: tensor '{name}'" in ran.stdout
    assert "tokenizer" not in ran.stdout and "error: 1 check failed\n" in ran.stderr


@pytest.mark.parametrize(
    ("file", "content", "title"),
    [
        ("config.json", "[]", "config"),
        ("config.json", '{"model_type": "gpt9"}', "config"),
        ("model.safetensors", "x", "tensors"),
        ("tokenizer.json", "{}", "tensors"),
    ],
)
def test_verify_names_what_is_damaged(pio, tmp_path, file, content, title):
    folder = shutil.copytree(resolve("demo"), tmp_path / "model")
    (folder / file).write_text(content)
    ran = pio("verify", folder, "qwen3_0_6b")
    assert ran.exit_code == 1 and f"✗ {title}: " in ran.stdout
    assert ran.stdout.count("✗") == 1  # and the plugin, which comes after it, is checked and whole


def test_verify_a_plugin_that_breaks_its_promise(pio, monkeypatch):
    from pio import registry

    manifest = registry.manifests()["qwen3_0_6b"]
    parts = {k: v for k, v in manifest.components.items() if k != "mlp"}
    broken = {"qwen3_0_6b": manifest.model_copy(update={"components": parts})}
    monkeypatch.setattr(registry, "manifests", lambda: broken)
    ran = pio("verify", "qwen3_0_6b")
    assert ran.exit_code == 1 and "✗ components: components lacks mlp" in ran.stdout


def test_download(pio, monkeypatch, tmp_path):
    from pio.loading import download

    asked = []

    def fetch(repo: str, **options: object) -> Path:
        asked.append((repo, options))
        return tmp_path

    monkeypatch.setattr(download, "download", fetch)
    ran = pio("download", "org/name", "--revision", "v2", "--no-progress")
    assert asked == [("org/name", {"revision": "v2", "progress": False})]
    assert ran.stdout == f"{tmp_path}\n" and "pio generate org/name@v2" in ran.stderr

    assert pio("download", "org/name@v2").stderr == ran.stderr
    assert asked[1] == ("org/name", {"revision": "v2", "progress": None})
    twice = pio("download", "org/name@v2", "--revision", "v3")
    assert twice.exit_code == 1 and "two revisions" in twice.stderr and len(asked) == 2


def test_download_refuses_what_is_no_repo(pio):
    ran = pio("download", "nonsense")
    assert ran.exit_code == 1 and ran.stderr.startswith("error: 'nonsense' is no repo id")
