"""``pio.quantize``: the folder it writes, what it loads to, and what is left when it fails."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from needs import SYMLINKS, link, needs_limits, needs_signals, on_windows
from odd_checkpoint import CONFIG, write_odd_checkpoint

import pio
from pio.layers.quantization import POLICIES
from pio.loading import quantization_config
from pio.loading.checkpoint import resolve
from pio.loading.quantization_config import Format, Policy, StoredQuantization
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.loading.unfinished import PREFIX
from pio.loading.weights import Weights
from pio.ops.quantized import FORMATS
from pio.plugin import quantizer
from pio.system import HERE

KINDS = [("int8", "balanced"), ("int4", "balanced"), ("int4", "uniform"), ("int4_zero_point", "uniform")]
GOLDEN = Path(__file__).parents[1] / "golden" / "qwen3"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_odd_checkpoint(tmp_path_factory.mktemp("original") / "model")


def bits(path, prompt, **options):
    """Greedy tokens, and every bit of the logits of a prompt."""
    with pio.load(path, **options) as model:
        tokens = model.generate(prompt, max_new_tokens=12, temperature=0.0, ignore_eos=True).token_ids
        return tokens, bytes(model.logits(prompt).memoryview()), model.metadata.formats, model.metadata.memory


def left(folder):
    """What lies in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def unfinished(folder):
    """Folders there that somebody is still writing or has left; on Windows a lock lies beside each that is written."""
    return [name for name in left(folder) if name.startswith(PREFIX) and (folder / name).is_dir()]


@pytest.mark.parametrize(("form", "policy"), KINDS)
def test_it_loads_to_the_bits_of_quantizing_on_the_fly(original, tmp_path, form, policy):
    made = pio.quantize(original, tmp_path / "made", format=form, policy=policy)
    assert made == tmp_path / "made" and left(tmp_path) == ["made"]
    stored = bits(made, [5, 80, 1, 44])
    assert stored == bits(original, [5, 80, 1, 44], quantize=form, quantize_policy=policy)
    assert stored[2] == {"layers": form, "tables": "int8" if policy == "balanced" else form}
    assert stored[0] == bits(original, [5, 80, 1, 44])[0] or form != "int8"


@pytest.mark.parametrize("form", ["int4", "int8"])
def test_the_demo_model(tmp_path, form):
    made = pio.quantize("demo", tmp_path / "made", format=form)
    prompt = list(range(16, 60))
    assert bits(made, prompt) == bits("demo", prompt, quantize=form)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (made / name).read_bytes() == (resolve("demo") / name).read_bytes()
    with pio.load(made) as model:
        assert model.generate_text("def f", max_new_tokens=3)
        model.check_weights()


@pytest.mark.parametrize("name", ["tied_stored_head_bf16", "bias_sharded_bf16", "mqa_f16"])
def test_published_styles(tmp_path, name):
    """A head that is stored although it is tied is left out; shards become one file."""
    made = pio.quantize(GOLDEN / name, tmp_path / "made", policy="uniform")
    assert bits(made, [5, 1, 4]) == bits(GOLDEN / name, [5, 1, 4], quantize="int4", quantize_policy="uniform")
    assert ("lm_head.weight" in Weights(made)) == (name != "tied_stored_head_bf16")
    assert left(made) == sorted(
        {"config.json", "model.safetensors", *left(GOLDEN / name)}
        & {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    )


def test_what_is_in_the_folder(original, tmp_path):
    made = pio.quantize(original, tmp_path / "made")
    config = json.loads((made / "config.json").read_text())
    assert config.pop("quantization_config") == {
        "quant_method": "pio",
        "format": "int4",
        "policy": "balanced",
        "group_size": 32,
        "version": 1,
    }
    assert config == CONFIG
    before, after = SafetensorsFile(original / "model.safetensors"), SafetensorsFile(made / "model.safetensors")
    assert set(after.names) == set(before.names)
    for name in before.names:
        old, new = before.entry(name), after.entry(name)
        if len(old.shape) == 1:
            assert (new.dtype, new.shape) == (old.dtype, old.shape)
            assert after.tensor(name).tolist() == before.tensor(name).tolist()
        else:
            width = 64 + (1024 if "proj" not in name else 512)  # scales of 2 x 16, numbers of 64 x 16
            assert (new.dtype, new.shape) == ("U8", (-(-old.shape[0] // 16), -(-old.shape[1] // 64), width))
            assert after.tensor(name).address % 64 == 0
        assert after.tensor(name).address % after.tensor(name).dtype.itemsize == 0


def test_shards(original, tmp_path, monkeypatch):
    single = pio.quantize(original, tmp_path / "single")
    monkeypatch.setattr(quantizer, "SHARD", 30_000)
    made = pio.quantize(original, tmp_path / "made")
    files = sorted(made.glob("*.safetensors"))
    index = json.loads((made / "model.safetensors.index.json").read_text())
    assert len(files) > 2 and files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert index["metadata"]["total_size"] == Weights(single).nbytes == Weights(made).nbytes
    assert set(index["weight_map"]) == set(Weights(single))
    assert bits(made, [9, 2]) == bits(single, [9, 2])


def test_an_empty_folder_is_filled_and_no_other(original, tmp_path):
    (tmp_path / "empty").mkdir()
    assert pio.quantize(original, tmp_path / "empty") == tmp_path / "empty"
    (tmp_path / "file").write_text("mine")
    for used in ("empty", "file"):
        with pytest.raises(pio.ConfigError, match="is there already"):
            pio.quantize(original, tmp_path / used)
    with pytest.raises(pio.ConfigError, match="dst: found NoneType, expected the path of a new folder"):
        pio.quantize(original, None)
    with pytest.raises(pio.ConfigError, match="there is no folder"):
        pio.quantize(original, tmp_path / "no" / "where")
    with pytest.raises(pio.ConfigError, match="is there already"):
        pio.quantize(original, original)
    assert (tmp_path / "file").read_text() == "mine" and left(tmp_path) == ["empty", "file"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\0b", r"can be no folder: no path holds \\0"),
        pytest.param("con", "Windows has a device of that name: 'con'", marks=on_windows),
        pytest.param("nul.int4", "of that name: 'nul.int4'", marks=on_windows),
        pytest.param("made:int4", "Windows lets no name hold ':': 'made:int4'", marks=on_windows),
        pytest.param("made.", "at the end of a name: 'made.'", marks=on_windows),
    ],
)
def test_names_that_no_folder_can_have(original, tmp_path, name, words):
    with pytest.raises(pio.ConfigError, match=words):
        pio.quantize(original, f"{tmp_path}/{name}")
    assert left(tmp_path) == []


@on_windows
def test_a_folder_whose_files_would_have_too_long_paths(original, tmp_path, monkeypatch):
    monkeypatch.setattr("pio.system.windows_calls.long_paths", lambda: False)  # as Windows has it where nobody asks
    with pytest.raises(pio.ConfigError, match=r"it has 2\d\d characters, and Windows lets this program use 259; use a"):
        pio.quantize(original, tmp_path / ("m" * (250 - len(str(tmp_path)))))
    assert left(tmp_path) == []


def test_what_stands_in_a_folders_way_is_named(original, tmp_path, monkeypatch):
    def move(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(HERE, "move_folder", move)
    with pytest.raises(
        pio.CheckpointError, match=r"cannot write .*made: Permission denied; choose a folder in which this"
    ):
        pio.quantize(original, tmp_path / "made")
    assert left(tmp_path) == []


@on_windows
def test_a_folder_that_somebody_works_in_is_not_replaced(original, tmp_path):
    (tmp_path / "made").mkdir()
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, cwd=tmp_path / "made", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(pio.CheckpointError, match=r"made: another program, or this one, has it open; close it, or"):
            pio.quantize(original, tmp_path / "made")
        assert left(tmp_path) == ["made"]
        other.communicate()
    assert pio.quantize(original, tmp_path / "made") == tmp_path / "made"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "int5"}, "int5"),
        ({"format": None}, "format is None"),
        ({"policy": "best"}, "best"),
        ({"plugin": "qwen9"}, "qwen9"),
        ({"threads": 0}, "threads"),
    ],
)
def test_options_that_cannot_be_used(original, tmp_path, options, words):
    with pytest.raises(pio.ConfigError, match=words):
        pio.quantize(original, tmp_path / "made", **options)
    assert left(tmp_path) == []


def test_a_quantized_folder_is_not_quantized_again(original, tmp_path):
    made = pio.quantize(original, tmp_path / "made")
    with pytest.raises(pio.ConfigError, match=r"quantized already, as int4; give the original folder"):
        pio.quantize(made, tmp_path / "again", format="int8")
    assert left(tmp_path) == ["made"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.layers.1.mlp.up_proj.weight", float("nan")),
        ("model.norm.weight", float("inf")),
        ("model.layers.0.self_attn.q_proj.weight", 3e38),
    ],
)
def test_a_bad_tensor_leaves_nothing(original, tmp_path, name, value):
    tensors = {
        n: t
        for file in [SafetensorsFile(original / "model.safetensors")]
        for n in file.names
        for t in [file.tensor(n).clone()]
    }
    tensors[name].reshape(-1)[3:4].fill_(value)
    bad = shutil.copytree(original, tmp_path / "bad")
    write_safetensors(bad / "model.safetensors", tensors)
    with pytest.raises(pio.CheckpointError, match=name):
        pio.quantize(bad, tmp_path / "made")
    assert left(tmp_path) == ["bad"]
    if "norm" not in name:
        with pytest.raises(pio.CheckpointError, match=name):
            pio.load(bad, quantize="int4")


@needs_limits
def test_a_full_disk_leaves_nothing(original, tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(pio.CheckpointError, match=r"cannot write .*made: .*; free disk space"):
            pio.quantize(original, tmp_path / "made")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(tmp_path) == []


def test_a_disk_with_too_little_room_is_not_begun(original, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 2, 7))
    with pytest.raises(pio.CheckpointError, match=r"the disk of .* has 7 bytes free"):
        pio.quantize(original, tmp_path / "made")
    assert left(tmp_path) == []


@pytest.mark.parametrize(("owner", "method"), [(quantizer.SafetensorsWriter, "write"), (quantizer.HERE, "sync_folder")])
def test_an_interrupted_run_leaves_nothing(original, tmp_path, monkeypatch, owner, method):
    def interrupt(*_):
        assert [name for name in left(tmp_path) if name.startswith(PREFIX)]
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, method, interrupt)
    with pytest.raises(KeyboardInterrupt):
        pio.quantize(original, tmp_path / "made")
    assert left(tmp_path) == []


RUN = """
import sys, pio.plugin.quantizer as quantizer
from pio.cli import main

def write(self, tensor, write=quantizer.SafetensorsWriter.write):
    write(self, tensor)
    sys.stdout.write("written\\n")
    sys.stdout.flush()
    sys.stdin.read()

quantizer.SafetensorsWriter.write = write
sys.argv = ["pio", "quantize", *sys.argv[1:]]
main()
"""


@pytest.fixture
def running(original, tmp_path):
    """A command that has written one tensor and waits for more input, or its end."""
    command = [sys.executable, "-c", RUN, str(original), str(tmp_path / "made")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            assert run.stdout.readline().rstrip() == b"written"
            assert len(unfinished(tmp_path)) == 1
            yield run
        finally:
            run.kill()


@needs_signals
@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_command_that_is_ended_leaves_nothing(running, tmp_path, sent, code):
    running.send_signal(getattr(signal, sent))
    assert running.wait(60) == code
    assert left(tmp_path) == []


def test_what_a_killed_command_leaves_is_removed_by_the_next(running, original, tmp_path):
    ours = unfinished(tmp_path)
    running.kill()
    running.wait(60)
    assert left(tmp_path) == ours
    pio.quantize(original, tmp_path / "made")
    assert left(tmp_path) == ["made"]


def test_a_command_that_runs_beside_is_not_disturbed(running, original, tmp_path):
    before = left(tmp_path)
    pio.quantize(original, tmp_path / "other")
    assert sorted(left(tmp_path)) == sorted([*before, "other"])
    running.communicate(timeout=60)
    assert running.returncode == 0 and sorted(left(tmp_path)) == ["made", "other"]
    assert pio.load(tmp_path / "made").cleanup()


def test_folders_of_others_stay(original, tmp_path):
    others = [".made.0123456789ab.tmp", f"{PREFIX}0123", f"{PREFIX}0123456789abc", "0123456789ab"]
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("mine")
    (tmp_path / f"{PREFIX}0123456789ab").write_text("a file")
    if SYMLINKS:
        link(tmp_path / f"{PREFIX}0123456789ac", tmp_path / others[0])
    before = left(tmp_path)
    pio.quantize(original, tmp_path / "made")
    assert sorted(left(tmp_path)) == sorted([*before, "made"])
    assert all((tmp_path / name / "file").read_text() == "mine" for name in others)


def test_names_are_those_of_the_kernels():
    assert get_args(Format) == tuple(FORMATS) and get_args(Policy) == tuple(POLICIES)
    assert all(forms.keys() == FORMATS.keys() for forms in POLICIES.values())
    assert quantization_config.GROUP == 32 and StoredQuantization("int8", "uniform").as_dict()["version"] == 1
