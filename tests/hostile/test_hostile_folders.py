from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from hostile_folder import DATA, HEADER, hub_repo, model_folder, packed, refused, sharded_folder, shards
from needs import link, needs_fifos, needs_symlinks, on_windows

from pio.loading.checkpoint import Checkpoint, resolve
from pio.loading.model_file import check_inside
from pio.loading.weights import Weights
from pio.system import HERE

MAP = {"a": "x-1.safetensors", "b": "x-2.safetensors"}
INDEX = "model.safetensors.index.json"
# Windows looks at the words of a path alone, so that there it is the current folder.
UP = pytest.param("org/..", marks=pytest.mark.skipif(sys.platform == "win32", reason="names a folder here"))


def weights(folder: Path) -> Weights:
    return Checkpoint(folder).weights()


def test_the_unspoilt_folders_load(tmp_path: Path) -> None:
    assert set(weights(model_folder(tmp_path / "one"))) == {"a", "b"}
    assert set(weights(sharded_folder(tmp_path / "two", MAP))) == {"a", "b"}


@pytest.mark.parametrize(
    "name",
    [
        "../x-1.safetensors",
        "../../etc/x.safetensors",
        "/etc/x.safetensors",
        "sub/x-1.safetensors",
        "./x-1.safetensors",
        "..\\x-1.safetensors",
        "C:\\x.safetensors",
        "x\0.safetensors",
        "x\n.safetensors",
        "x" * 300 + ".safetensors",
        *(
            pytest.param(name, marks=on_windows)
            for name in (
                "con.safetensors",
                "NUL.x.safetensors",
                "x-1:y.safetensors",
                "x-?.safetensors",
                "com1 .safetensors",
            )
        ),
    ],
)
def test_an_index_may_only_name_plain_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "x-1.safetensors").write_bytes(packed(HEADER))  # what "../" would reach
    folder = sharded_folder(tmp_path / "m", {**MAP, "a": name})
    (folder / "sub").mkdir()
    (folder / "sub" / "x-1.safetensors").write_bytes(packed(HEADER))
    refused(lambda: weights(folder), INDEX, repr(name[:80]))


@pytest.mark.parametrize("name", ["", ".", "..", "x-1.bin", "x-1.safetensors/", 7, None, ["x-1.safetensors"]])
def test_an_index_may_only_name_safetensors(name: object, tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m", {**MAP, "a": name})
    refused(lambda: weights(folder), INDEX)


@needs_symlinks
@pytest.mark.parametrize("target", ["outside.safetensors", "/etc/hostname", "m2/outside.safetensors"])
def test_a_link_may_not_lead_out_of_the_folder(target: str, tmp_path: Path) -> None:
    (tmp_path / "m2").mkdir()  # begins like the folder's own name
    for place in (tmp_path, tmp_path / "m2"):
        (place / "outside.safetensors").write_bytes(packed(HEADER))
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    link(folder / "model.safetensors", tmp_path / target)
    refused(lambda: weights(folder), "model.safetensors", "leads out")


@needs_symlinks
def test_a_shard_may_not_be_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "outside.safetensors").write_bytes(shards()["x-2.safetensors"])
    folder = sharded_folder(tmp_path / "m", MAP)
    (folder / "x-2.safetensors").unlink()
    link(folder / "x-2.safetensors", "../outside.safetensors")
    refused(lambda: weights(folder), "x-2.safetensors", "leads out")


@needs_symlinks
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_config_may_not_be_a_link_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    folder = model_folder(tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    link(folder / name, "../secret.json")
    checkpoint = Checkpoint(folder)
    refused(lambda: getattr(checkpoint, name.removesuffix(".json")), name, "leads out")


@needs_symlinks
def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "v1.dat")
    link(folder / "model.safetensors", "v1.dat")
    assert len(weights(folder)) == 2


@needs_symlinks
def test_links_in_a_circle(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    link(folder / "config.json", "config.json")
    refused(lambda: Checkpoint(folder).config, "config.json")


def test_missing_shard(tmp_path: Path) -> None:
    files = shards()
    del files["x-2.safetensors"]
    refused(lambda: weights(sharded_folder(tmp_path / "m", MAP, files)), INDEX, "x-2.safetensors", "1 of the 2")


def test_truncated_shard(tmp_path: Path) -> None:
    files = shards()
    files["x-2.safetensors"] = files["x-2.safetensors"][:-3]
    refused(lambda: weights(sharded_folder(tmp_path / "m", MAP, files)), "x-2.safetensors", "7 bytes of data")


def test_tensor_absent_from_its_shard(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m", {**MAP, "c": "x-1.safetensors"})
    refused(lambda: weights(folder), INDEX, "'c'", "x-1.safetensors")


def test_tensor_in_another_shard_than_the_index_says(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m", {"a": "x-2.safetensors", "b": "x-1.safetensors"})
    refused(lambda: weights(folder), INDEX, "'a'")


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    files = {**shards(), "x-2.safetensors": packed(HEADER)}
    refused(lambda: weights(sharded_folder(tmp_path / "m", MAP, files)), "'a'", "x-1.safetensors", "x-2.safetensors")


@pytest.mark.parametrize("weight_map", [None, {}, [], "x-1.safetensors", 3])
def test_index_without_a_map(weight_map: object, tmp_path: Path) -> None:
    refused(lambda: weights(sharded_folder(tmp_path / "m", weight_map)), INDEX, "weight_map")


def test_index_with_a_key_twice(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m", MAP)
    (folder / INDEX).write_text('{"weight_map": {"a": "x-1.safetensors", "a": "x-2.safetensors"}}')
    refused(lambda: weights(folder), INDEX, "'a' twice")


def test_index_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m", MAP)
    os.truncate(folder / INDEX, 3 << 30)
    refused(lambda: weights(folder), INDEX, "64000000", peak=200_000)


def test_index_of_thousands_of_files(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m", {f"t{i}": f"x-{i}.safetensors" for i in range(1001)})
    refused(lambda: weights(folder), INDEX, "1001 files")


@pytest.mark.parametrize(
    ("config", "mention"),
    [
        ("", "JSON"),
        ("[]", "object"),
        ("null", "object"),
        ('"qwen3"', "object"),
        ("3", "object"),
        ("{", "JSON"),
        ('{"a": 1}}', "JSON"),
        ('{"model_type": "a", "model_type": "b"}', "'model_type' twice"),
        ('{"a": {"b": 1, "b": 2}}', "'b' twice"),
        ('{"a":' * 90 + "1" + "}" * 90, "nested"),
        ("[" * 100_000, "nested"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "nested"),
        ('{"a": [' + "[]," * 300_000 + "1]}", "values"),
        ('{"a": ' + "7" * 100_000 + "}", "JSON"),
        (" " * 4_000_001, "4000000"),
    ],
    ids=range(15),
)
def test_bad_config(config: str, mention: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", config=config)
    (folder / "generation_config.json").write_text(config)
    checkpoint = Checkpoint(folder)
    refused(lambda: checkpoint.config, str(folder / "config.json"), mention)
    refused(lambda: checkpoint.generation_config, str(folder / "generation_config.json"), mention)


def test_config_that_is_not_text(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_bytes(b'{"a": "\xff"}')
    refused(lambda: Checkpoint(folder).config, "config.json", "UTF-8")


def test_config_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    os.truncate(folder / "config.json", 2 << 30)
    refused(lambda: Checkpoint(folder).config, "config.json", "4000000", peak=200_000)


@needs_fifos
def test_config_that_is_a_pipe(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    refused(lambda: Checkpoint(folder).config, "config.json", "not a regular file")


def test_config_that_is_a_folder(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refused(lambda: Checkpoint(folder).config, "config.json", "folder")


def test_missing_config(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    refused(lambda: Checkpoint(folder).config, str(folder), "config.json")


def test_several_files_without_an_index(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m", MAP)
    (folder / INDEX).unlink()
    refused(lambda: weights(folder), INDEX, "x-1.safetensors", "x-2.safetensors")


def test_shape_that_config_does_not_expect(tmp_path: Path) -> None:
    taken = weights(model_folder(tmp_path / "m"))
    refused(lambda: taken.take("a", (3, 2)), "'a'", "[2, 3]", "[3, 2]")
    refused(lambda: taken.take("a", (6,)), "'a'", "[2, 3]", "[6]")
    refused(lambda: taken.take("a.bias", (6,)), "'a.bias'", "missing")


def test_type_that_the_model_cannot_use(tmp_path: Path) -> None:
    header = {"a": {"dtype": "I32", "shape": [7], "data_offsets": [0, 28]}}
    taken = weights(model_folder(tmp_path / "m", packed(header, DATA[:28])))
    refused(lambda: taken.take("a", (7,)), "'a'", "int32", "bfloat16")


def test_leftover_tensors_are_listed_but_not_all(tmp_path: Path) -> None:
    entries = {f"t{i:03}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(250)}
    taken = weights(model_folder(tmp_path / "m", packed(entries, b"")))
    taken.take("t000", (0,))
    message = refused(taken.finish, "249 of the 250", "'t001'", "'t010'", "239 more")
    assert "'t011'" not in message


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [("0000c07f", "F32"), ("000080ff", "F32"), ("c07f", "BF16"), ("80ff", "BF16"), ("007e", "F16"), ("007c", "F16")],
)
def test_weights_that_are_no_numbers(bits: str, dtype: str, tmp_path: Path) -> None:
    bad = bytes.fromhex(bits)
    data = bytes(len(bad)) * 7 + bad + bytes(len(bad)) + bad
    header = {"a": {"dtype": dtype, "shape": [2, 5], "data_offsets": [0, len(data)]}}
    taken = weights(model_folder(tmp_path / "m", packed(header, data)))
    refused(lambda: taken.check_finite("a"), "'a'", "NaN or infinity", "[1, 2]", peak=40_000_000)


@pytest.mark.parametrize(
    "name",
    ["", "no/such/folder", "../no-such", "org/na me", UP, "a/b@", "a/b@../c", "a//b", "org/x\0y", "-x/y", "é/x"]
    + ["x" * 5000, "org/" + "x" * 200, "a--b/c", "~nobody-here/x"]
    + [
        pytest.param(name, marks=on_windows)
        for name in ("nul", "models\\con", "aux/m/x", "m:stream", "C:\\m?", "E:\\no\\m")
    ],
)
def test_names_that_lead_nowhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    refused(lambda: resolve(name))


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    refused(lambda: resolve(folder / "model.safetensors"), "is a file", str(folder))
    refused(lambda: Checkpoint(folder / "model.safetensors"), "model.safetensors", "folder")


@needs_symlinks
def test_cache_links_to_its_own_blobs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo, snapshot = hub_repo(tmp_path)
    assert resolve("org/name") == snapshot
    assert len(weights(snapshot)) == 2
    for target in ("../../refs/main", "../../../models--evil--one/blobs/x", "../../../../outside", "/etc/hostname"):
        (snapshot / "config.json").unlink()
        link(snapshot / "config.json", target)
        refused(lambda: Checkpoint(snapshot).config, "config.json", "leads out")
    (repo / "blobs" / "blob-model.safetensors").unlink()
    link(repo / "blobs" / "blob-model.safetensors", "/etc/hostname")
    refused(lambda: weights(snapshot), "model.safetensors", "leads out")


@needs_symlinks
@pytest.mark.parametrize("place", ["snapshots", "repo/snapshots/c", "models--org--name/copies/c"])
def test_a_folder_that_only_looks_like_the_cache(place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    folder = model_folder(tmp_path / place)
    for blobs in (tmp_path / "blobs", tmp_path / place.split("/")[0] / "blobs"):
        blobs.mkdir(parents=True)
        (blobs / "x").write_text("{}")
        (folder / "config.json").unlink()
        link(folder / "config.json", blobs / "x")
        if blobs.parent != folder:
            refused(lambda: Checkpoint(folder).config, "leads out")


@needs_symlinks
def test_shared_blobs_need_their_marker(tmp_path: Path) -> None:
    _, snapshot = hub_repo(tmp_path)
    store = tmp_path / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    store.write_text('{"model_type": "shared"}')
    (snapshot / "config.json").unlink()
    link(snapshot / "config.json", store)
    refused(lambda: Checkpoint(snapshot).config, "leads out")
    (tmp_path / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    assert Checkpoint(snapshot).config == json.loads(store.read_text())


@pytest.mark.parametrize(
    ("to", "inside"),
    [
        ("models--org--name/snapshots/cc/config.json", True),
        ("models--org--name/snapshots/cc/deeper/x", True),
        ("models--org--name/blobs/x", True),
        ("models--org--name/blobs/deeper/x", False),
        ("models--org--name/snapshots/ccc/config.json", False),
        ("models--org--other/blobs/x", False),
        (f"blobs/ab/{'ab' * 32}", True),
        (f"blobs/ab/{'ab' * 32}/x", False),
        (f"blobs/{'ab' * 32}", False),
        (f"more/blobs/ab/{'ab' * 32}", False),
        pytest.param("D:\\elsewhere", False, marks=on_windows),
        pytest.param("\\\\SERVER\\SHARE\\x", False, marks=on_windows),
    ],
)
def test_where_a_link_may_lead(to: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system says where links lead; that it does say so is tested where links can be made."""
    folder = tmp_path / "models--org--name" / "snapshots" / "cc"
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    monkeypatch.setattr(HERE, "real_path", lambda path: str(path if path == folder else tmp_path / to))
    if inside:
        check_inside(folder, "config.json", "a test")
    else:
        refused(lambda: check_inside(folder, "config.json", "a test"), "leads out")


@on_windows
def test_a_path_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pio.system.windows_calls.long_paths", lambda: False)  # as Windows has it where nobody asks
    long = tmp_path / ("m" * 200) / ("n" * 200)
    for load in (lambda: resolve(long), lambda: resolve(str(long)), lambda: Checkpoint(long)):
        refused(load, f"it has {len(str(long))} characters, and Windows lets this program use 259", "LongPathsEnabled")


def test_reference_that_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo, _ = hub_repo(tmp_path)
    model_folder(tmp_path / "evil")
    for content in ("../../evil", "", "x" * 150, "C" * 40):
        (repo / "refs" / "main").write_text(content)
        refused(lambda: resolve("org/name"), "org/name", "pio download org/name")
    (repo / "refs" / "main").write_text("c" * 5000)
    refused(lambda: resolve("org/name"), str(repo / "refs" / "main"))
