import json
import shutil

import pytest

import pio as package
from pio.loading.checkpoint import resolve
from pio.system import HERE

GREEDY = ("-t", 0, "-n", 9)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    return package.quantize("demo", tmp_path_factory.mktemp("quantized") / "demo", format="int4")


def test_it_writes_the_name_of_the_folder(pio, quantized, tmp_path):
    new = tmp_path / "a new one"
    ran = pio("quantize", "demo", new, "--format", "int8", "--policy", "uniform", "--progress")
    assert ran.exit_code == 0 and ran.stdout == f"{new}\n"
    shown = HERE.quote(str(new))
    assert shown != str(new) and f"weights take 6.14 MB; pio chat {shown} runs it\n" in ran.stderr
    assert ran.stderr.startswith("quantizing ")
    stored = json.loads((new / "config.json").read_text("utf-8"))["quantization_config"]
    assert (stored["format"], stored["policy"]) == ("int8", "uniform")
    assert pio("quantize", "demo", tmp_path / "other").exit_code == 0
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "other", quantized)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "{here}"), "is there already"),
        (("demo", "{here}/new", "--format", "int3"), "int4_zero_point"),
        (("demo", "{here}/new", "--policy", "best"), "uniform"),
        (("nowhere", "{here}/new"), "there is no folder"),
        (("demo", "{here}/not/there"), "to put there in"),
    ],
)
def test_what_it_refuses(pio, tmp_path, arguments, words):
    (tmp_path / "mine").touch()
    ran = pio("quantize", *(argument.format(here=tmp_path) for argument in arguments))
    assert ran.exit_code == 1 and ran.stderr.startswith("error: ") and words in ran.stderr
    assert ran.stdout == "" and [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_quantizing_on_the_fly_gives_what_the_folder_gives(pio, quantized):
    stored = pio("generate", quantized, "def add(a, b):\n", *GREEDY)
    given = pio("generate", "demo", "def add(a, b):\n", *GREEDY, "--quantize", "int4", "--quantize-policy", "balanced")
    assert given.exit_code == 0 and given.stdout == stored.stdout
    other = pio("generate", quantized, "x", "--quantize", "int8")
    assert other.exit_code == 1 and "quantized already" in other.stderr
    assert "'int3'" in pio("chat", "demo", "--quantize", "int3").stderr


def test_verbose_names_the_format(pio, quantized):
    shown = pio("generate", quantized, "x", "-n", 1, "--verbose").stderr
    assert "parameters in layers int4, tables int8 on " in shown
    assert " in bfloat16 on " in pio("generate", "demo", "x", "-n", 1, "--verbose").stderr


def test_verify(pio, quantized, tmp_path):
    ran = pio("verify", quantized)
    assert ran.exit_code == 0 and "✓ weights are numbers" in ran.stdout
    folder = shutil.copytree(quantized, tmp_path / "broken")
    with (folder / "model.safetensors").open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))["model.layers.2.mlp.up_proj.weight"]
        file.seek(8 + length + entry["data_offsets"][0])
        file.write(b"\x00\x7e")  # NaN
    ran = pio("verify", folder)
    assert ran.exit_code == 1
    assert "✗ weights are numbers: " in ran.stdout and "'model.layers.2.mlp.up_proj.weight' has a scale" in ran.stdout


def test_models_of_the_cache(pio, quantized, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    for repo, method in (("ours", "pio"), ("theirs", "gptq")):
        folder = shutil.copytree(quantized, tmp_path / f"models--org--{repo}" / "snapshots" / commit)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config["quantization_config"]["quant_method"] = method
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        reference = folder.parent.parent / "refs" / "main"
        reference.parent.mkdir()
        reference.write_text(commit, "utf-8")
    found = {m["name"]: m["plugin"] for m in json.loads(pio("models", "--json").stdout)["models"]}
    assert found == {"demo": "qwen3_0_6b", "org/ours": "qwen3_0_6b", "org/theirs": "none: UnsupportedModelError"}


def test_bench_names_the_formats(pio, quantized):
    quick = ("--rounds", 1, "--new-tokens", 3, "--prompt-tokens", 20, "--buffer-mb", 1)
    report = json.loads(pio("bench", quantized, *quick, "--json").stdout)
    assert report["formats"] == {"layers": "int4", "tables": "int8"}
    weights = sum(path.stat().st_size for path in quantized.glob("*.safetensors"))
    assert 0.95 * weights < report["weights_per_token"] == report["weights_bytes"] <= weights
    shown = pio("bench", "demo", *quick, "--quantize", "int4", "--quantize-policy", "uniform").stdout
    assert "5.77 M parameters in int4;" in shown
    config = resolve("demo") / "config.json"
    random = json.loads(pio("bench", "--config", config, *quick, "--quantize", "int8", "--json").stdout)
    assert random["formats"] == {"layers": "int8", "tables": "int8"}
