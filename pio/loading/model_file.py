"""One file of a model folder: regular, inside the folder, and read with a limit on its size."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path, PurePath

from pio.errors import CheckpointError
from pio.loading.file_error import unreadable
from pio.system import HERE

_SHARED_BLOB = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")
_LFS = b"version https://git-lfs"
_SHARED_BLOBS_MARKER = ".huggingface-shared-blobs"


def shown(value: object, limit: int = 80) -> str:
    """Return ``repr(value)``, cut to ``limit`` characters, for messages about text that a stranger wrote."""
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]!r}..."
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= limit + 20 else f"{text[:limit]}..."


def shown_path(path: str, limit: int = 300) -> str:
    """Return what ``shown`` makes of a path, with the separators of Windows as they are."""
    return shown(path, limit).replace("\\\\", "\\")


def shown_names(names: Sequence[str], limit: int) -> str:
    """Return the first of some names as ``shown`` has them, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(shown(name) for name in names[:limit]) + more


def open_regular(path: Path) -> tuple[int, int]:
    """Open a regular file for reading; return its descriptor, which the caller closes, and its size in bytes.

    Pipes and devices, which could block for ever or never end, are refused without being read.

    Raises:
        CheckpointError: The file is missing, not readable or not a regular file.
    """
    try:
        descriptor = os.open(path, HERE.read_flags)
    except OSError as error:
        if isinstance(error, PermissionError) and os.path.isdir(path):  # which Windows opens for nobody
            raise _no_file(path, "a folder") from error
        raise unreadable(path, error) from error
    except ValueError as error:  # a NUL in the name
        raise CheckpointError(f"{shown(str(path))} is not a usable file name; correct the path") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _no_file(path, "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    return descriptor, status.st_size


def _no_file(path: Path, found: str) -> CheckpointError:
    return CheckpointError(f"cannot read {path}: it is {found}; a file was expected, download the model again")


def first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, fewer where it is shorter.

    Raises:
        CheckpointError: The file is missing, not readable or not a regular file.
    """
    descriptor, _ = open_regular(path)
    try:
        return os.read(descriptor, count)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(descriptor)


def listed(folder: Path) -> list[str]:
    """Return the names of what lies in a folder, in order.

    Raises:
        CheckpointError: This user may not list it.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise unreadable(folder, error) from error


def check_whole(path: Path, begin: bytes) -> None:
    """Refuse a file that stands in for one that was never fetched.

    Args:
        path: The file.
        begin: Its first bytes, eight or more.

    Raises:
        CheckpointError: It is a pointer of Git LFS, or a web page.
    """
    if len(begin) >= 8 and begin[: len(_LFS)] == _LFS[: len(begin)]:
        raise CheckpointError(
            f"{path} is a pointer of Git LFS, and not the file itself: run git lfs pull in its folder, or download the "
            "file again"
        )
    if begin.lower().startswith((b"<!doctyp", b"<html")):
        raise CheckpointError(
            f"{path} is a web page that was saved in the file's place; download the file again, with pio download, or "
            "signed in where the model is restricted"
        )


def read_limited(path: Path, limit: int) -> bytes:
    """Return the whole file, which may hold at most ``limit`` bytes.

    Raises:
        CheckpointError: It is longer, missing, unreadable, or shrank while it was read.
    """
    descriptor, size = open_regular(path)
    with open(descriptor, "rb", buffering=0) as file:
        if size > limit:
            raise CheckpointError(
                f"{path} holds {size} bytes, at most {limit} are accepted; it is damaged or not a model file, "
                "download the model again"
            )
        try:
            data = file.read(size + 1)
        except OSError as error:
            raise unreadable(path, error) from error
    check_whole(path, data[: len(_LFS)])
    if len(data) != size:
        raise CheckpointError(f"{path} changed from {size} to {len(data)} bytes while it was read; load it again")
    return data


def check_inside(folder: Path, name: str, where: str) -> None:
    """Check that file ``name``, which need not exist, lies in the folder.

    Links may not lead out of the folder, except that a snapshot of the Hugging Face cache keeps its files in the
    ``blobs`` folders of that cache.

    Args:
        folder: The model folder.
        name: A plain file name, such as one named by an index file.
        where: What named the file, for messages.

    Raises:
        CheckpointError: The name is no plain file name, or a link leads out of the folder.
    """
    plain = name not in ("", ".", "..") and len(name) <= 255 and name.isprintable() and not {"/", "\\"} & set(name)
    problem = HERE.name_problem(name) if plain else None
    if not plain or problem is not None:
        reason = f" ({problem})" if problem else ""
        raise CheckpointError(
            f"{where} names the file {shown(name)}; a plain file name inside {folder} was expected{reason}; "
            "do not use this folder unless you trust its source"
        )
    try:
        root, real = HERE.real_path(folder), HERE.real_path(folder / name)
    except OSError as error:
        raise unreadable(folder / name, error) from error
    if not _within(root, real) and not _hub_blob(root, real):
        raise CheckpointError(
            f"{folder / name} is a link that leads out of the model folder, to {real}; "
            "replace it by a copy of the file, or load the folder that really holds the model"
        )


def find(folder: Path, name: str) -> Path | None:
    """Return the path of file ``name`` of the folder, or None where there is none.

    Raises:
        CheckpointError: The name is no plain file name, a link leads out of the folder or nowhere, or it may not be
            looked up.
    """
    check_inside(folder, name, "the caller")
    path = folder / name
    try:
        os.stat(path)
    except FileNotFoundError as error:
        if HERE.file_problem(path, error) is not None:
            raise unreadable(path, error) from error
        if os.path.islink(path):
            raise CheckpointError(
                f"{path} is a link to {os.path.realpath(path)}, where there is no file; download the model again"
            ) from None
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    return path


def _within(root: str, real: str) -> bool:
    return real.startswith(root.rstrip(os.sep) + os.sep)


def _hub_blob(root: str, real: str) -> bool:
    """Say whether ``real`` is a blob of the Hugging Face cache whose snapshot folder is ``root``."""
    snapshots, revision = os.path.split(root)
    repo, folder = os.path.split(snapshots)
    cache, repo_name = os.path.split(repo)
    if folder != "snapshots" or not revision or not repo_name.startswith("models--"):
        return False
    if os.path.dirname(real) == os.path.join(repo, "blobs"):
        return True
    shared = os.path.join(cache, "blobs")  # newer caches keep one copy of a file that several repos hold
    inner = "/".join(PurePath(real).parts[len(PurePath(shared).parts) :])
    known = _within(shared, real) and _SHARED_BLOB.fullmatch(inner) is not None
    return known and os.path.isfile(os.path.join(shared, _SHARED_BLOBS_MARKER))
