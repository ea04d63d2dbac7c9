"""A model folder: where it is, its configuration and its weights."""

from __future__ import annotations

import errno
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pio.errors import CheckpointError
from pio.loading.file_error import unreadable
from pio.loading.hub_cache import is_repo_id, snapshot
from pio.loading.json_file import read_object
from pio.loading.model_file import find, read_limited, shown, shown_path
from pio.loading.other_formats import explain_file, explain_folder, refuse_adapter
from pio.loading.weights import Weights
from pio.system import HERE

MAX_CONFIG_BYTES = 4_000_000
DEMO = "demo"


def resolve(path_or_name: str | os.PathLike[str], *, download: bool = False) -> Path:
    """Return the folder of a model.

    Args:
        path_or_name: ``"demo"``, the model inside the package; a folder; or a repo id such as ``"org/name"`` or
            ``"org/name@revision"``, looked up in the local Hugging Face cache. A folder wins over a repo id.
        download: Fetch the repo where the cache does not hold it. Nothing touches a network otherwise.

    Raises:
        CheckpointError: There is no such model here; the message says how to get it.
    """
    try:
        name = os.fsdecode(path_or_name)
    except TypeError:  # such as None, for a variable that nobody has set
        name = ""
    if not name or len(name) > 4096 or "\0" in name:
        named = shown(name or path_or_name)
        raise CheckpointError(f"{named} names no model; give a model folder, a repo id or {DEMO!r}")
    if path_or_name == DEMO:  # never a folder that happens to be here; that one is "./demo"
        return Path(__file__).absolute().parent.parent / DEMO
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):
        return folder.absolute()
    strange = HERE.path_problem(folder)
    if strange is None and os.path.exists(folder):
        raise CheckpointError(explain_file(folder))
    if isinstance(path_or_name, str) and is_repo_id(name):
        repo, _, revision = name.partition("@")
        found = snapshot(repo, revision or None)
        if found is not None:
            return found
        if download:
            from pio.loading.download import download as fetch

            return fetch(repo, revision=revision or None)
        option = f" --revision {revision}" if revision else ""
        raise CheckpointError(
            f"{name} is neither a folder here nor complete in the local Hugging Face cache; "
            f"run pio download {repo}{option}, or pass download=True"
        )
    if strange is not None:
        raise CheckpointError(f"{shown_path(name)} leads to no folder: {strange}")
    try:
        os.stat(folder)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ELOOP) or HERE.file_problem(folder, error) is not None:
            raise unreadable(folder, error) from error
    raise CheckpointError(
        f"there is no folder {shown_path(name)}; give the folder of a model, a repo id such as 'org/name', or {DEMO!r}"
    )


class Checkpoint:
    """A model folder with ``config.json`` and safetensors weights.

    Attributes:
        path: The folder.
        mapped: Whether weights are mapped from their files, or read into memory.

    Raises:
        CheckpointError: There is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str], *, mapped: bool = True) -> None:
        self.path = Path(folder).absolute()
        self.mapped = mapped
        if not os.path.isdir(self.path):
            remedy = HERE.path_problem(self.path) or "give the folder that holds config.json"
            raise CheckpointError(f"{self.path} is not a folder; {remedy}")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The object in ``config.json``, at most 4 MB.

        Raises:
            CheckpointError: It is missing, unreadable, or not one JSON object.
        """
        path = find(self.path, "config.json")
        if path is None:
            raise CheckpointError(explain_folder(self.path, "config.json"))
        return read_object(path, max_bytes=MAX_CONFIG_BYTES)

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """The object in ``generation_config.json``, ``{}`` where there is none.

        Raises:
            CheckpointError: It is unreadable or not one JSON object.
        """
        path = find(self.path, "generation_config.json")
        return read_object(path, max_bytes=MAX_CONFIG_BYTES) if path is not None else {}

    def weights(self) -> Weights:
        """Open the weights; no tensor is read before it is taken.

        Raises:
            CheckpointError: A file is missing, damaged or contradicts the index, or an adapter would change them.
        """
        refuse_adapter(self.path)
        return Weights(self.path, mapped=self.mapped)

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return the bytes of another file of the folder, such as ``tokenizer.json``, or None where there is none.

        Raises:
            CheckpointError: It is larger than ``max_bytes``, unreadable, or a link that leads out of the folder.
        """
        path = find(self.path, name)
        return read_limited(path, max_bytes) if path is not None else None
