"""Files and folders on Windows."""

from __future__ import annotations

import sys

assert sys.platform == "win32"

import errno
import io
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pio.system import access_list, file_errors, file_names, windows_calls
from pio.system.files import Files

# A new file is looked at by virus scanners, which keep it open meanwhile: what is refused is tried again.
_FILE_SECONDS: Final = 0.5
_FOLDER_SECONDS: Final = 10.0  # of one with gigabytes

_reading = threading.Lock()


class WindowsFiles(Files):
    """The part of Windows that has to do with files."""

    read_flags = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT
    permission_remedy = "give it the right to read, in the file's properties under Security or with icacls"

    def read_at(self, descriptor: int, target: memoryview, position: int) -> int:
        """Read from the descriptor's own position, one thread after the other."""
        with _reading:
            os.lseek(descriptor, position, os.SEEK_SET)
            with io.FileIO(descriptor, closefd=False) as file:
                return file.readinto(target)

    def real_path(self, path: str | os.PathLike[str]) -> str:
        """Return it without the prefix of long paths and with a capital for the drive."""
        return file_names.usual(os.path.realpath(path))

    def name_problem(self, name: str) -> str | None:
        """Look for names of devices, streams of files, and what the system leaves out."""
        return file_names.name_problem(name)

    def path_problem(self, path: str | os.PathLike[str]) -> str | None:
        """Look for such names in it, and at its length."""
        whole = os.path.join(os.getcwd(), path)  # os.path.abspath would make \\.\nul of nul
        return file_names.path_problem(whole, long_paths=windows_calls.long_paths())

    def file_problem(self, path: str | os.PathLike[str], error: OSError, *, writing: bool = False) -> str | None:
        """Tell by the system's own number, which the C library hides; it is asked for anew then."""
        code: int | None = getattr(error, "winerror", None)
        missing = isinstance(error, FileNotFoundError)
        if code is None and not missing:
            code = windows_calls.open_error(os.fspath(path), windows_calls.READ)
            if code in file_errors.MISSING and not writing:
                return (
                    "it is not there any more; connect its drive or network folder again, or download the model again"
                )
        return file_errors.file_problem(code or 0, writing=writing) or (self.path_problem(path) if missing else None)

    def may_write(self, folder: Path) -> bool:
        """Ask for that right; of a folder's access list Python looks at nothing."""
        return windows_calls.open_error(str(folder), windows_calls.ADD_FILE) == 0

    def distrust(self, path: Path, descriptor: int | None) -> str | None:
        """Look at the owner, and at the access list."""
        try:
            access = windows_calls.access_of(str(path), descriptor)
        except ValueError as error:
            return f"{path} has an access list that pio cannot read: {error}"
        folder = descriptor is None and path.is_dir()  # no folder has a descriptor here
        return access_list.distrust(access, windows_calls.this_user(), str(path), folder=folder)

    def make_private_folder(self, folder: Path) -> None:
        """Make it with an access list of its own, for that of the folder around it may let others write."""
        windows_calls.make_private_folder(folder)

    def replace(self, source: Path, target: Path) -> None:
        """Replace a file that nobody has open or mapped."""
        try:
            _patiently(lambda: os.replace(source, target), _FILE_SECONDS)
        except OSError as error:
            held = source if _is_held(source) and not _is_held(target) else target
            if error.winerror in file_errors.IN_USE or _is_held(held):
                raise _in_use(held) from error
            if _is_read_only(target):
                raise PermissionError(
                    errno.EACCES, "it is marked as read-only in its properties", str(target)
                ) from error
            raise

    def discard(self, path: Path) -> None:
        """Remove a file; one that somebody has open stays."""
        with suppress(OSError):
            _patiently(lambda: os.unlink(path), _FILE_SECONDS)

    def remove_folder(self, folder: Path) -> None:
        """Remove what is in it, read-only files too; what somebody has open stays."""
        until = time.monotonic() + _FILE_SECONDS

        def again(remove: Callable[[str], object], path: str, _: object) -> None:
            if remove not in (os.unlink, os.rmdir):
                return
            with suppress(OSError):
                if _is_read_only(Path(path)):
                    os.chmod(path, stat.S_IWRITE)
                _patiently(lambda: remove(path), until - time.monotonic())

        options: dict[str, Any] = {"onexc" if sys.version_info >= (3, 12) else "onerror": again}
        shutil.rmtree(folder, **options)

    def move_folder(self, source: Path, target: Path) -> None:
        """Remove an empty folder of that name, then rename."""
        empty = target.is_dir()
        if empty:
            os.rmdir(target)
        try:
            _patiently(lambda: os.rename(source, target), _FOLDER_SECONDS)
        except BaseException:
            if empty:
                with suppress(OSError):
                    target.mkdir()
            raise

    def sync_folder(self, folder: str | os.PathLike[str]) -> None:
        """Do nothing: folders cannot be opened for that, and the file system keeps their lists in order."""

    def lock_folder(self, folder: Path, *, needed: bool = False) -> int | None:
        """Open a file beside it for this process alone: a folder that holds an open file cannot be moved."""
        lock = windows_calls.take(_lock_file(folder))
        if lock is None or folder.is_dir():  # else another process has removed it before this one had the lock
            return lock
        windows_calls.close(lock)
        return None

    def unlock_folder(self, folder: Path, lock: int) -> None:
        """Close the file, which removes it."""
        windows_calls.close(lock)


def _patiently(attempt: Callable[[], object], seconds: float) -> None:
    """Try again for a while what somebody's open file is in the way of; the last error is raised."""
    end, pause = time.monotonic() + seconds, 0.005
    while True:
        try:
            attempt()
            return
        except OSError as error:
            if error.winerror not in file_errors.HELD or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause *= 2


def _is_held(path: Path) -> bool:
    """Return whether a file is open so that it can be neither renamed nor removed."""
    return windows_calls.open_error(str(path), windows_calls.DELETE) in file_errors.IN_USE


def _is_read_only(path: Path) -> bool:
    try:
        attributes = os.stat(path, follow_symlinks=False).st_file_attributes
    except OSError:
        return False
    link = attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT  # what is done to it would be done to where it leads
    return bool(attributes & stat.FILE_ATTRIBUTE_READONLY) and not link


def _in_use(path: Path) -> OSError:
    return OSError(None, "another program, or this one, has it open", str(path), file_errors.SHARING_VIOLATION)


def _lock_file(folder: Path) -> str:
    return str(folder.with_name(folder.name + ".lock"))
