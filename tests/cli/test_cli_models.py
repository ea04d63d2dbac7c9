import json
import shutil
from pathlib import Path

import pytest

from pio.cli import verify
from pio.cli.console import write_lines
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
        reference.write_text(COMMIT, "utf-8")
    other = shutil.copytree(tmp_path / "models--some-org--whole", tmp_path / "models--other--strange")
    (other / "snapshots" / COMMIT / "config.json").write_text('{"model_type": "strange"}', "utf-8")
    return tmp_path


def test_plugins_and_local_models(pio, cache):
    found = json.loads(pio("models", "--json").stdout)
    plugins = {p["name"]: p for p in found["plugins"]}
    assert plugins["qwen3_0_6b"]["source"] == "pio" and plugins["qwen3_0_6b"]["parameters"] == 596_049_920
    assert plugins["qwen3_vl_2b_instruct"]["modalities"] == ["text", "image", "video"]
    models = {m["name"]: (m["model_type"], m["plugin"], m["modalities"]) for m in found["models"]}
    assert models == {
        "demo": ("qwen3", "qwen3_0_6b", ["text"]),
        "some-org/whole": ("qwen3", "qwen3_0_6b", ["text"]),
        "other/strange": ("strange", "none: UnsupportedModelError", []),
    }


def test_tables(pio, cache):
    shown = pio("models").stdout
    for words in ("qwen3_4b_instruct_2507", "596 M", "2.5 GB", "reasoning", "11.5 MB", "text, image, video"):
        assert words in shown
    names = {line.split()[0] for line in shown.splitlines() if line}  # each can be copied whole
    assert names >= {"demo", "some-org/whole", "other/strange", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-Coder-30B-A3B-Instruct"}


@pytest.mark.parametrize(("columns", "width"), [(99, 27), (27, 27), (26, 14), (14, 14), (13, 7), (3, 7)])
def test_a_terminal_leaves_columns_out_and_cuts_none(monkeypatch, capsys, columns, width):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    write_lines("Title", ["name", ">size", "plugin"], [["org/one", "7 MB", "some_plugin"], ["x", "11 MB", "y"]])
    whole = ("name      size  plugin", "org/one   7 MB  some_plugin", "x        11 MB  y")
    assert capsys.readouterr().out.splitlines() == ["Title", *(line[:width].rstrip() for line in whole)]


def test_a_local_model_runs_by_its_name(pio, cache):
    ran = pio("verify", "some-org/whole")
    assert ran.exit_code == 0 and "✓ weights are numbers" in ran.stdout
    assert "tokenizer: none" in ran.stdout and "chat template: none" in ran.stdout


def test_verify_everything(pio):
    ran = pio("verify")
    assert ran.exit_code == 0 and "✗" not in ran.stdout
    for name in ("qwen3_0_6b", "qwen3_4b_instruct_2507", "demo"):
        assert f"{name}\n" in ran.stdout


def broken_package(folder: Path, manifests: dict[str, str]) -> None:
    """Write a package of plugins, as pip would install it."""
    package = folder / "walnut_pack"
    for name, manifest in manifests.items():
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
        (package / name / "plugin_manifest.json").write_text(manifest, "utf-8")
    (package / "__init__.py").touch()
    info = folder / "walnut_pack-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: walnut-pack\nVersion: 1\n", "utf-8")
    points = [f"{name} = walnut_pack.{name}" for name in manifests] + ["gone = walnut_pack.gone", "lost = no_such.lost"]
    (info / "entry_points.txt").write_text("\n".join(["[pio.plugins]", *points]), "utf-8")


def test_verify_fails_on_plugins_that_cannot_be_used(pio, tmp_path, monkeypatch):
    from pio.plugin import registry

    demo = registry.manifests()["qwen3_0_6b"]
    own = demo.model_dump(mode="json")
    raising = {
        **own,
        "name": "raising",
        "factory": "walnut_pack.raising.code:make",
        "plugin": "walnut_pack.raising.code:P",
    }
    broken_package(
        tmp_path,
        {
            "half": '{"name": "half"}',
            "twice": json.dumps(own),
            "raising": json.dumps({**raising, "model_types": ["walnut"]}),
        },
    )
    (tmp_path / "walnut_pack" / "raising" / "code.py").write_text("1 / 0\n", "utf-8")
    with monkeypatch.context() as path:
        path.syspath_prepend(str(tmp_path))
        registry.manifests.cache_clear()
        ran = pio("verify")
        assert registry.manifests()["qwen3_0_6b"] == demo
        assert pio("verify", "qwen3_0_6b", "demo").exit_code == 0
    registry.manifests.cache_clear()
    assert ran.exit_code == 1 and "error: 5 checks failed\n" in ran.stderr
    said = ran.stdout
    half = tmp_path / "walnut_pack" / "half" / "plugin_manifest.json"
    assert f"half\n  ✗ manifest: {half}: version: Field required" in said
    assert "the name qwen3_0_6b is taken" in said
    assert "raising\n  ✓ components" in said and "ZeroDivisionError" in said
    assert "gone\n  ✗ manifest: walnut_pack.gone is no package" in said
    assert "lost\n  ✗ manifest: no_such.lost cannot be found" in said
    assert "demo\n  ✓ folder" in said and said.count("✓ a small model: answers with 2 tokens") == 6


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
    assert f"✗ weights are numbers: {folder / 'model.safetensors'}: tensor '{name}'" in ran.stdout
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
    (folder / file).write_text(content, "utf-8")
    ran = pio("verify", folder, "qwen3_0_6b")
    assert ran.exit_code == 1 and f"✗ {title}: " in ran.stdout
    assert ran.stdout.count("✗") == 1  # and the plugin, which comes after it, is checked and whole


def test_verify_a_plugin_that_breaks_its_promise(pio, monkeypatch):
    from pio.plugin import registry

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


def test_a_check_that_fails_ends_the_others_at_once(capsys):
    ended = []

    def checks():
        try:
            yield "one", lambda: 1 / 0
        finally:
            ended.append(True)

    kept = checks()  # as a traceback keeps it
    assert verify._run(kept) == 1 and ended == [True]
    assert "ZeroDivisionError" in capsys.readouterr().out
