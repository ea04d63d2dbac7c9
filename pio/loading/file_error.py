"""What is said where the system refuses to read or write a file: the cause, and what to do about it."""

from __future__ import annotations

import errno
from pathlib import Path

from pio.errors import CheckpointError, PioError
from pio.memory.refusal import memory_refused
from pio.system import HERE

_ROOM = "free disk space or choose another folder"


def unreadable(path: Path, error: OSError) -> PioError:
    """Return the error that explains why ``path`` could not be opened, read or mapped: a CheckpointError as a rule."""
    refused = memory_refused(error, f"reading {path}")
    if refused is not None:
        return refused
    remedy = HERE.file_problem(path, error)
    if remedy is not None:
        pass
    elif isinstance(error, FileNotFoundError):
        remedy = "the file does not exist; download the model again or correct the path"
    elif isinstance(error, PermissionError):
        remedy = f"this user may not read it; {HERE.permission_remedy}"
    elif isinstance(error, (IsADirectoryError, NotADirectoryError)):
        remedy = "a file was expected here; correct the path or download the model again"
    elif error.errno == errno.ELOOP:
        remedy = "it is a link that leads back to itself; replace it by the file, or download the model again"
    elif error.errno == errno.ENXIO:  # what opening a socket says
        remedy = "it is not a regular file; a file was expected, download the model again"
    else:
        remedy = f"{error.strerror or error}; check the disk and download the model again"
    return CheckpointError(f"cannot read {path}: {remedy}")


def unwritable(path: Path, error: OSError) -> PioError:
    """Return the error that explains why a file or folder could not be written: a CheckpointError as a rule."""
    refused = memory_refused(error, f"writing {path}")
    if refused is not None:
        return refused
    remedy = HERE.file_problem(path, error, writing=True)
    if remedy is None:
        what = "choose a folder in which this user may write" if isinstance(error, PermissionError) else _ROOM
        remedy = f"{error.strerror or error}; {what}"
    return CheckpointError(f"cannot write {path}: {remedy}")
