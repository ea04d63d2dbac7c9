"""Which safetensors files of a folder hold the weights: one file, or the shards that an index lists."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, cast

from pio.errors import CheckpointError
from pio.loading.json_file import read_object
from pio.loading.model_file import check_inside, find, listed, shown, shown_names
from pio.loading.other_formats import explain_folder

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64_000_000
MAX_SHARDS = 1000
_MAX_VALUES = 1_000_000
_REMEDY = "download the model again"
# Safetensors files that hold something else than a model's weights.
_OTHERS = re.compile(r"(consolidated|adapter_model).*")

_log = logging.getLogger("pio.loading")


def shard_map(folder: Path) -> dict[str, str] | None:
    """Return the file name that the folder's index gives for each tensor, or None where there is no index.

    Raises:
        CheckpointError: The index is unreadable, larger than 64 MB, malformed, or names a file outside the folder.
    """
    path = find(folder, INDEX)
    if path is None:
        return None
    raw = read_object(path, max_bytes=MAX_INDEX_BYTES, max_values=_MAX_VALUES).get("weight_map")
    where = str(folder / INDEX)
    if not isinstance(raw, dict) or not raw:
        raise CheckpointError(f"{where}: weight_map must be an object that names tensors; {_REMEDY}")
    found = cast("dict[str, Any]", raw)
    for name, file in found.items():
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{where}: weight_map gives {shown(file)} for tensor {shown(name)}, "
                f"the name of a .safetensors file was expected; {_REMEDY}"
            )
    files = set(found.values())
    if len(files) > MAX_SHARDS:
        raise CheckpointError(f"{where} names {len(files)} files, at most {MAX_SHARDS} are accepted; {_REMEDY}")
    for file in sorted(files):
        check_inside(folder, file, where)
    return found


def weight_files(folder: Path) -> list[str]:
    """Return the files that hold the weights: model.safetensors, else the index's shards, else the only one there is.

    Raises:
        CheckpointError: There is none, a shard is missing, or it is not clear which files to read.
    """
    if find(folder, SINGLE) is not None:
        return [SINGLE]
    index = shard_map(folder)
    if index is not None:
        names = sorted(set(index.values()))
        missing = [name for name in names if find(folder, name) is None]
        if missing:
            raise CheckpointError(
                f"{folder}: {len(missing)} of the {len(names)} files that {INDEX} names are missing "
                f"({shown_names(missing, 5)}); the download is incomplete, {_REMEDY}"
            )
        return names
    candidates = [name for name in listed(folder) if name.endswith(".safetensors") and not _OTHERS.fullmatch(name)]
    if len(candidates) == 1:
        return candidates
    if candidates:
        raise CheckpointError(
            f"{folder} holds {len(candidates)} safetensors files ({shown_names(candidates, 5)}) but neither {SINGLE} "
            f"nor {INDEX}; {_REMEDY}"
        )
    raise CheckpointError(explain_folder(folder, SINGLE))


def warn_of_others(folder: Path, names: list[str]) -> None:
    """Say which weights lie beside those that are read; consolidated ones are the same in their maker's layout."""
    others = [name for name in listed(folder) if name.endswith(".safetensors") and name not in names]
    others = [name for name in others if not name.startswith("consolidated")]
    if others:
        read = shown(names[0]) if len(names) == 1 else f"the {len(names)} files of the index"
        _log.warning("%s: not read, for the weights are in %s: %s", folder, read, shown_names(others, 10))
