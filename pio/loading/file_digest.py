"""A digest of what a weight file holds; it is noted, so that the file is read once as long as nobody writes to it."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from pio.errors import CheckpointError
from pio.loading.safetensors import SafetensorsFile
from pio.system import HERE

SETTLED: Final = 2.0  # seconds after which somebody who writes once more changes the time that the file system keeps
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")

_log = logging.getLogger("pio.loading")


def file_digest(file: SafetensorsFile, notes: Path, check: Callable[[], object] = lambda: None) -> str:
    """Return the SHA-256 of a whole file.

    Args:
        file: The file.
        notes: A folder that only this user can write, with a small file for each file whose digest is known.
        check: Called between pieces; what it raises ends the reading.

    Raises:
        CheckpointError: The file cannot be read, or was changed since it was opened: what was made of it before may be
            of other bytes.
    """
    note = notes / f"weights-{sha256(repr(file.state).encode()).hexdigest()[:32]}"
    try:
        noted = note.read_bytes()
    except OSError:
        noted = b""
    if _DIGEST.fullmatch(noted):
        _check_unchanged(file)
        return noted.decode()
    _log.info("reading %s to tell it from other models; this is done once", file.path)
    digest = sha256()
    for piece in file.pieces():
        digest.update(piece)
        check()
    _check_unchanged(file)
    found = digest.hexdigest()
    if time.time() - max(file.state[3:]) / 1e9 > SETTLED and HERE.may_write(notes):
        _note(note, found)
    return found


def _check_unchanged(file: SafetensorsFile) -> None:
    try:
        now = os.stat(file.path)
    except OSError:  # it may be gone, or another file be there: what was opened stays as it is
        return
    if (now.st_dev, now.st_ino) == file.state[:2] and (now.st_size, now.st_mtime_ns) != file.state[2:4]:
        raise CheckpointError(
            f"{file.path} was changed while it was loaded; wait until it is written completely, and load it again"
        )


def _note(note: Path, digest: str) -> None:
    try:
        with HERE.replacing(note) as beside:
            beside.write_text(digest, "ascii")
    except OSError as error:
        _log.info("a digest cannot be noted in %s, so that the next load reads the file again: %s", note.parent, error)
