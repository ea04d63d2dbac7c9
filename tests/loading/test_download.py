from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub
from needs import SYMLINKS
from own_signals import send_to_main
from processes import Program, environment

from pio.errors import CheckpointError
from pio.loading.checkpoint import Checkpoint, resolve
from pio.loading.download import download
from pio.loading.safetensors import write_safetensors
from pio.system import HERE
from pio.tensor import Tensor

huggingface_hub = pytest.importorskip("huggingface_hub")

REPO = "Org/Tiny-1.5"
INDEX = "model.safetensors.index.json"
WANTED = ["chat_template.jinja", "config.json", "generation_config.json", "merges.txt", INDEX, "tokenizer.json"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def repo_files(tmp_path: Path) -> dict[str, bytes]:
    tensors = {"a": Tensor.from_list([[1.0, 2.0, 3.0]]), "b": Tensor.from_list([float(i) for i in range(4000)])}
    for shard, (name, tensor) in zip(SHARDS, tensors.items(), strict=True):
        write_safetensors(tmp_path / shard, {name: tensor})
    weight_map = dict(zip(tensors, SHARDS, strict=True))
    files = {shard: (tmp_path / shard).read_bytes() for shard in SHARDS}
    files |= {name: f"content of {name}".encode() for name in WANTED}
    files |= {
        "config.json": b'{"model_type": "qwen3"}',
        "generation_config.json": b'{"top_k": 20}',
        INDEX: json.dumps({"weight_map": weight_map}).encode(),
        "pytorch_model.bin": b"a pickle",
        "README.md": b"# Tiny",
        "model.gguf": b"GGUF",
        "onnx/config.json": b"{}",
        "original/model.safetensors": b"",
        "run.py": b"raise SystemExit",
    }
    return files


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    look_up = socket.getaddrinfo
    others: list[object] = []

    def local(host: object, *args: Any, **kwargs: Any) -> Any:
        if host not in ("127.0.0.1", b"127.0.0.1"):
            others.append(host)
            raise socket.gaierror(socket.EAI_FAIL, "not in a test")
        return look_up(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", local)
    yield
    assert others == []


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    from huggingface_hub import constants

    with Hub({REPO: repo_files(tmp_path)}) as server:
        # Whatever the library asks of a hub goes to this one, without a person's token and without reports on its use.
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        template = template[template.index("/{repo_id}") :]
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
        if not SYMLINKS:
            without_links(monkeypatch)
        yield server


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library know that no links can be made, as it finds out on Windows."""
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *_: False)


def get(hub: Hub, repo: str = REPO, revision: str | None = None) -> Path:
    return download(repo, revision=revision, progress=False, endpoint=hub.endpoint)


def test_a_downloaded_model_loads_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run pio download Org/Tiny-1\.5,"):
        resolve(REPO)
    assert hub.requests == []
    folder = get(hub)
    assert folder == tmp_path / "cache" / "models--Org--Tiny-1.5" / "snapshots" / ("a" * 40)
    assert sorted(os.listdir(folder)) == sorted(WANTED + SHARDS) == hub.fetched()
    assert {(folder / name).is_symlink() for name in os.listdir(folder)} == {SYMLINKS}
    asked = len(hub.requests)
    assert resolve(REPO) == resolve(f"{REPO}@main") == folder
    checkpoint = Checkpoint(resolve(REPO))
    assert checkpoint.config == {"model_type": "qwen3"} and checkpoint.generation_config == {"top_k": 20}
    weights = checkpoint.weights()
    assert weights.take("a", (1, 3)).tolist() == [[1.0, 2.0, 3.0]]
    assert weights.take("b", (4000,))[3999].item() == 3999.0
    weights.finish()
    assert len(hub.requests) == asked


def test_a_cache_without_links(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    without_links(monkeypatch)
    folder = get(hub)
    assert sorted(os.listdir(folder)) == sorted(WANTED + SHARDS)
    assert not any((folder / name).is_symlink() for name in os.listdir(folder))
    assert resolve(REPO) == folder
    assert Checkpoint(folder).weights().take("a", (1, 3)).tolist() == [[1.0, 2.0, 3.0]]
    hub.requests.clear()
    assert get(hub) == folder and hub.fetched() == []


def test_resolve_downloads_when_asked(hub: Hub) -> None:
    folder = resolve(f"{REPO}@v2", download=True)
    assert folder.name == "b" * 40
    assert resolve(f"{REPO}@v2") == folder
    with pytest.raises(CheckpointError, match="pio download"):
        resolve(REPO)


def test_a_second_download_fetches_nothing(hub: Hub) -> None:
    folder = get(hub)
    hub.requests.clear()
    assert get(hub) == folder
    assert hub.fetched() == []


def test_progress_can_be_switched_on_and_off(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    get(hub)
    assert capfd.readouterr() == ("", "")
    download(REPO, revision="v2", endpoint=hub.endpoint)  # standard error is no terminal here
    assert capfd.readouterr() == ("", "")
    hub.revisions["main"] = "c" * 40
    download(REPO, progress=True, endpoint=hub.endpoint)
    out, err = capfd.readouterr()
    assert out == "" and "Fetching" in err


def test_an_interrupted_download_is_no_model_and_resumes(hub: Hub) -> None:
    hub.refused[SHARDS[1]] = (403, "")
    with pytest.raises(CheckpointError, match=r"cannot download Org/Tiny-1\.5: .*run the download again"):
        get(hub)
    with pytest.raises(CheckpointError, match="pio download"):
        resolve(REPO)
    hub.refused.clear()
    hub.requests.clear()
    folder = get(hub)
    assert hub.fetched() == [SHARDS[1]]
    assert resolve(REPO) == folder and len(Checkpoint(folder).weights()) == 2


def test_a_broken_connection_resumes_where_it_broke(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut[SHARDS[1]] = 5500
    with contextlib.suppress(CheckpointError):  # early releases of huggingface_hub leave resuming to the next call
        get(hub)
    folder = get(hub)
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.endswith(SHARDS[1])]
    assert ranges == [None, "bytes=5000-"]
    assert Checkpoint(folder).weights().take("b", (4000,)).tolist() == [float(i) for i in range(4000)]


def test_ctrl_c_ends_the_wait_at_once_and_what_is_fetched_with_its_next_piece(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.held[SHARDS[1]] = 5500
    presses = threading.Thread(target=lambda: (hub.holds.wait(60), send_to_main(signal.SIGINT)))
    presses.start()
    with pytest.raises(KeyboardInterrupt):
        get(hub)
    presses.join()
    assert not hub.go_on.is_set()
    hub.go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("ThreadPoolExecutor", "pio-work")):
            thread.join(60)
    with pytest.raises(CheckpointError, match="pio download"):
        resolve(REPO)
    hub.held.clear()
    assert len(Checkpoint(get(hub)).weights()) == 2


def test_the_command_ends_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.held["tokenizer.json"] = 5
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
    for number, code in ((signal.SIGINT, 130), (HERE.ending_signals[-1], 128 + HERE.ending_signals[-1])):
        ran = Program("pio", "download", REPO, env={**environment(), **settings})
        assert hub.holds.wait(60)
        hub.holds.clear()
        ran.send(number)
        assert ran.end() == (code, b"")
    assert not hub.go_on.is_set()


def test_weights_are_not_fetched_before_the_rest(hub: Hub) -> None:
    hub.refused["tokenizer.json"] = (403, "")
    with pytest.raises(CheckpointError, match="cannot download"):
        get(hub)
    assert not any(name.endswith(".safetensors") for name in hub.fetched())


def test_the_weights_belong_to_the_commit_of_the_rest(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = huggingface_hub.snapshot_download

    def then_somebody_pushes(*args: Any, **kwargs: Any) -> str:
        folder = fetch(*args, **kwargs)
        hub.revisions |= {"main": "d" * 40, "before": "a" * 40}
        return folder

    monkeypatch.setattr(huggingface_hub, "snapshot_download", then_somebody_pushes)
    assert resolve(get(hub)).name == "a" * 40
    commits = {path.split("/resolve/")[1].split("/")[0] for _, path, _ in hub.requests if "/resolve/" in path}
    assert commits == {"a" * 40}


def test_a_repo_without_safetensors(hub: Hub) -> None:
    hub.files["Org/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b""}
    with pytest.raises(CheckpointError, match=r"Org/pickled holds no complete set of \*\.safetensors"):
        get(hub, "Org/pickled")


def test_a_repo_that_is_no_model_is_refused_before_its_weights(hub: Hub) -> None:
    hub.files["Org/adapter"] = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x" * 100}
    with pytest.raises(CheckpointError, match=r"Org/adapter holds no config\.json"):
        get(hub, "Org/adapter")
    assert hub.fetched() == ["adapter_config.json"]


def test_no_such_repo(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"cannot download Org/none: there is no such repo.*hf auth login"):
        get(hub, "Org/none")


def test_no_such_revision(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"at revision v9: the repo has no such revision"):
        get(hub, revision="v9")


def test_gated_repo(hub: Hub) -> None:
    hub.refused[REPO] = (403, "GatedRepo")
    with pytest.raises(CheckpointError, match=r"restricts access.*hf auth login"):
        get(hub)


def test_no_connection(hub: Hub) -> None:
    endpoint = hub.endpoint
    hub.__exit__()
    try:
        with pytest.raises(CheckpointError, match=r"did not deliver it .*check the connection"):
            download(REPO, progress=False, endpoint=endpoint)
    finally:
        hub.__enter__()


def test_offline_mode(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE forbids downloads"):
        get(hub)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full: free space"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written: set HF_HOME"),
        (RuntimeError("x" * 5000), "RuntimeError: xxx"),
    ],
)
def test_trouble_on_this_side(hub: Hub, error: Exception, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("wrapped") from error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=remedy) as caught:
        get(hub)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "../x", "a/b@main", "a/..", "", "a/b c", "https://hub/a/b", None, 7])
def test_a_name_that_is_no_repo_asks_nobody(name: Any, hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="no repo id"):
        get(hub, name)
    assert hub.requests == []
