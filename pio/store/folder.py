"""The folder of a store: who may write there, what its files are called, how one is added, read and removed.

Segments of all models lie side by side, so that one limit holds for all of them; a name begins with the root of its
store. Files of other names are nobody's business here: they are neither read nor counted nor removed.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pio.errors import ConfigError
from pio.store.segment import SegmentError, Stored, header_length, parse
from pio.system import HERE
from pio.system.files import UNFINISHED
from pio.thread_log import ThreadLog

OPTION: Final = "prefix_cache_path"
_SEGMENT: Final = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.safetensors")
_UNFINISHED: Final = re.compile(_SEGMENT.pattern + UNFINISHED)
_ABANDONED: Final = 600.0  # seconds after which nobody writes a file any more: its process has died

_log = ThreadLog("pio.store")


class Listed(NamedTuple):
    """A segment as the folder lists it.

    Attributes:
        used: When it was last used, in nanoseconds since the epoch.
        name: Of its file.
        nbytes: Of its file.
    """

    used: int
    name: str
    nbytes: int


def prepare(path: str | os.PathLike[str]) -> Path:
    """Make a folder for segments, private to this user, or look whether one that is there can be trusted.

    Raises:
        ConfigError: It cannot be made or used, or others may write to it: what is read from there decides answers.
    """
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                HERE.make_private_folder(folder)
            except FileExistsError:  # another process was faster
                pass
        os.listdir(folder)
        reason = HERE.distrust(folder, None)
    except (OSError, ValueError) as error:
        cause = HERE.file_problem(folder, error, writing=True) if isinstance(error, OSError) else None
        cause = cause or getattr(error, "strerror", None) or error
        raise ConfigError(f"{OPTION}={str(path)!r} cannot be used: {cause}; give a folder of your own") from error
    if reason is not None:
        raise ConfigError(f"{OPTION}={str(path)!r} cannot be trusted: {reason}")
    return folder


class SegmentFolder:
    """The segments of one root in a folder, beside those of others.

    Attributes:
        path: The folder.
        writable: Whether this user may make files there.
    """

    def __init__(self, path: Path, root: bytes) -> None:
        self.path = path
        self.writable = HERE.may_write(path)
        self.root = root
        self._own = f"{root.hex()[:16]}-"

    def changed(self) -> int:
        """Return a number that is another one after files were added or removed.

        Raises:
            OSError: The folder is gone.
        """
        return os.stat(self.path).st_mtime_ns

    def names(self) -> set[str]:
        """Return the names of this root's segments.

        Raises:
            OSError: The folder is gone.
        """
        return {name for name in os.listdir(self.path) if name.startswith(self._own) and _SEGMENT.fullmatch(name)}

    def listed(self) -> list[Listed]:
        """Return the segments of all roots, the one that was used least recently first.

        On the way what processes have left that died while they wrote is removed, where this user may do that.

        Raises:
            OSError: The folder is gone.
        """
        found: list[Listed] = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                segment = _SEGMENT.fullmatch(entry.name) is not None
                if not segment and _UNFINISHED.fullmatch(entry.name) is None:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # another process has removed it
                    continue
                if segment:
                    found.append(Listed(status.st_mtime_ns, entry.name, status.st_size))
                elif self.writable and time.time() - status.st_mtime > _ABANDONED:
                    HERE.discard(self.path / entry.name)
        return sorted(found)

    def items(self, name: str) -> list[Stored]:
        """Return what a segment holds.

        Raises:
            SegmentError: It is no whole segment of this root.
            OSError: It cannot be read, or is gone.
        """
        with open(self.path / name, "rb", buffering=0, opener=_reading) as file:
            size = os.fstat(file.fileno()).st_size
            length = header_length(file.read(8) or b"", size)
            raw = file.read(length) or b""
        if len(raw) < length:
            raise SegmentError("it was cut short")
        return parse(raw, size, self.root)

    def read(self, name: str, position: int, targets: Sequence[memoryview]) -> int:
        """Read bytes of a segment into several places, one behind the other; return how many there were.

        Raises:
            OSError: It cannot be read, or is gone.
        """
        descriptor = os.open(self.path / name, HERE.read_flags)
        try:
            return HERE.read_scattered(descriptor, targets, position)
        finally:
            os.close(descriptor)

    def new_name(self) -> str:
        """Return a name that no segment has."""
        return f"{self._own}{secrets.token_hex(8)}.safetensors"

    def write(self, name: str, header: bytes, data: memoryview) -> None:
        """Add a segment, which is there as a whole or not at all.

        Raises:
            OSError: The disk is full, the folder gone, or whatever else the system says.
        """
        with HERE.replacing(self.path / name) as beside, open(beside, "xb", opener=_private) as file:
            file.write(header)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        HERE.sync_folder(self.path)

    def note_use(self, name: str, when: int) -> None:
        """Note that a segment was used, in nanoseconds since the epoch; one that is gone stays so."""
        try:
            os.utime(self.path / name, ns=(when, when))
        except OSError as error:
            _log.debug("the use of %s cannot be noted: %s", self.path / name, error)

    def discard(self, name: str) -> bool:
        """Remove a segment, if it is there; return whether the system let it go."""
        HERE.discard(self.path / name)
        return not os.path.lexists(self.path / name)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _reading(path: str, _: int) -> int:
    return os.open(path, HERE.read_flags)
