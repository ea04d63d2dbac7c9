"""The local Hugging Face cache: where it is, and which of its snapshots are complete."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pio.errors import CheckpointError
from pio.loading.model_file import find, read_limited
from pio.loading.shard_index import SINGLE, shard_map

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]{0,127}(/[A-Za-z0-9][\w.-]{0,127})*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder() -> Path:
    """Return the folder in which huggingface_hub keeps repos, found as it finds it.

    The first of ``HF_HUB_CACHE``, ``HUGGINGFACE_HUB_CACHE``, ``HF_HOME``/hub, ``XDG_CACHE_HOME``/huggingface/hub and
    ~/.cache/huggingface/hub that is set.
    """
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(home, "huggingface"))
    cache = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    cache = os.environ.get("HF_HUB_CACHE", cache)
    return Path(os.path.expandvars(os.path.expanduser(cache)))


def is_repo_id(name: str) -> bool:
    """Say whether ``name`` has the form ``org/name`` or ``org/name@revision``, in characters that the hub allows."""
    repo, at, revision = name.partition("@")
    if not _REPO_ID.fullmatch(repo) or ".." in name or "--" in repo or repo.endswith((".git", ".", "-")):
        return False
    return not at or _REVISION.fullmatch(revision) is not None


def snapshot(repo: str, revision: str | None = None) -> Path | None:
    """Return the folder of a repo's snapshot in the local cache, or None where it is absent or only half downloaded.

    Args:
        repo: ``org/name``.
        revision: A branch, tag or commit; the default is ``main``.

    Raises:
        CheckpointError: The name is no repo id, or the cache is damaged.
    """
    revision = revision or "main"
    if not is_repo_id(f"{repo}@{revision}"):
        raise CheckpointError(f"{repo[:200]!r} at {revision[:200]!r} is no repo id; it has the form 'org/name'")
    root = cache_folder() / f"models--{repo.replace('/', '--')}"
    commit = revision
    reference = root / "refs" / revision
    if os.path.isfile(reference):
        commit = read_limited(reference, 200).decode("ascii", "replace").strip()
    if not _COMMIT.fullmatch(commit):
        return None
    folder = root / "snapshots" / commit
    return folder if os.path.isdir(folder) and is_complete(folder) else None


def is_complete(folder: Path) -> bool:
    """Say whether config.json and all weights are in the folder.

    A file appears in a snapshot only once it is downloaded, and pio fetches the weights last.

    Raises:
        CheckpointError: A link leads out of the cache, or the index is damaged.
    """
    if find(folder, "config.json") is None:
        return False
    if find(folder, SINGLE) is not None:
        return True
    index = shard_map(folder)
    if index is not None:
        return all(find(folder, name) is not None for name in set(index.values()))
    return any(path.is_file() for path in folder.glob("*.safetensors"))


def short_name(folder: str | os.PathLike[str]) -> str:
    """Return what to call a model's folder: its name, and for one in the Hugging Face cache that of the repo."""
    path = Path(folder)
    repo = path.parent.parent.name
    return repo.removeprefix("models--").replace("--", "/", 1) if repo.startswith("models--") else path.name
