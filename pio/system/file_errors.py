"""Errors of Windows that mean something else for a file than the error number which they are given in Python."""

from __future__ import annotations

from typing import Final

FILE_NOT_FOUND, ACCESS_DENIED, SHARING_VIOLATION, LOCK_VIOLATION, USER_MAPPED_FILE = 2, 5, 32, 33, 1224
IN_USE: Final = frozenset((SHARING_VIOLATION, LOCK_VIOLATION, USER_MAPPED_FILE))
MISSING: Final = frozenset((FILE_NOT_FOUND, 3, 15))  # no such file, folder, drive
# What the system may say where a file is open or mapped, and a moment later, when it is closed, no more.
HELD: Final = IN_USE | {ACCESS_DENIED}

_GONE: Final = frozenset((21, 53, 54, 55, 59, 64, 67, 433, 1006, 1110, 1112, 1167, 1231, 1232, 1236))
_FAILING: Final = frozenset((22, 23, 25, 27, 29, 30, 31, 483, 1117, 1392, 1393))
_WRITE_PROTECTED: Final = 19


def file_problem(code: int, *, writing: bool) -> str | None:
    """Return what an error of the system says of a file and what to do, or None where its error number tells as much.

    Args:
        code: The system's own number.
        writing: Whether the file was to be written, replaced or removed.
    """
    if code in IN_USE:
        if writing:
            return "another program, or this one, has it open; close it, or write elsewhere"
        return "another program has it open and lets nobody else read it; close it there"
    if code == _WRITE_PROTECTED and writing:
        return "its disk is write-protected; choose a folder on another one"
    if code in _GONE:
        return f"its drive or network folder is not there (error {code} of Windows); connect it again"
    if code in _FAILING:
        return f"its disk fails (error {code} of Windows); check the disk" + (
            ", or write elsewhere" if writing else " and download the model again"
        )
    return None
