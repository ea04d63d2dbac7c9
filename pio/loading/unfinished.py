"""Folders that are being written: hidden until they are whole, and removed when whoever wrote them is gone."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pio.shelter import sheltered
from pio.system import HERE

PREFIX: Final = ".pio-unfinished-"
_NAME: Final = re.compile(re.escape(PREFIX) + "[0-9a-f]{12}")


@contextmanager
def unfinished_folder(parent: Path) -> Generator[Path]:
    """Yield a new hidden folder, to be renamed when it is whole; it is removed as the context ends if it was not.

    Folders that processes left here which were killed are removed first. A lock on each folder, which the system
    releases when a process ends, tells them from those that are being written.

    Raises:
        OSError: None can be made there.
    """
    _remove_left_behind(parent)
    while True:
        folder, lock = parent / f"{PREFIX}{os.urandom(6).hex()}", None
        try:
            folder.mkdir()
            lock = HERE.lock_folder(folder)
            if lock is not None:  # else another process has just taken it for one that was left behind
                yield folder
                return
        finally:
            sheltered(lambda: HERE.remove_folder(folder))  # noqa: B023  called before the next round
            if lock is not None:
                HERE.unlock_folder(folder, lock)


def _remove_left_behind(parent: Path) -> None:
    found: list[Path] = []
    with suppress(OSError), os.scandir(parent) as entries:
        found = [Path(e.path) for e in entries if _NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    for folder in found:
        with suppress(OSError):  # one that cannot be locked, as another user's, leaves the others to be removed
            _remove_unless_locked(folder)


def _remove_unless_locked(folder: Path) -> None:
    lock = HERE.lock_folder(folder, needed=True)
    if lock is None:
        return
    try:
        HERE.remove_folder(folder)
    finally:
        HERE.unlock_folder(folder, lock)
