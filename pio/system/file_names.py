"""Names and paths that Windows takes for a device, for another file or for none; text alone, on whatever system."""

from __future__ import annotations

import ntpath
import re
from typing import Final

LONGEST: Final = 259  # characters of a path, where long ones are not enabled

_DEVICES: Final = frozenset(
    ("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$")
    + tuple(port + number for port in ("COM", "LPT") for number in "0123456789¹²³")
)
_FORBIDDEN: Final = frozenset('<>:"/\\|?*')
_VERBATIM: Final = "\\\\?\\"  # before a path that the system takes as it is
_DEVICE: Final = re.compile(r"[\\/]{2}\.[\\/](?![A-Za-z]:)")  # before one that is no drive


def name_problem(name: str) -> str | None:
    """Return why no file of a folder is meant by a name, for a message; None where one is.

    A device's name is one in every folder and with every ending; a colon separates a file from a stream in it.
    """
    if name.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        return "Windows has a device of that name"
    if name.endswith((".", " ")):
        return "Windows leaves out dots and spaces at the end of a name"
    found = next((character for character in name if character in _FORBIDDEN or character < " "), None)
    return None if found is None else f"Windows lets no name hold {found!r}"


def path_problem(path: str, *, long_paths: bool) -> str | None:
    """Return why nothing can be found at a path, for a message; None where something might.

    Args:
        path: The whole path, from the root of a drive.
        long_paths: Whether this process may use those of more than 259 characters.
    """
    if path.startswith(_VERBATIM):
        return None
    if _DEVICE.match(path):
        return "Windows has a device there; give a path that begins with a drive, such as C:\\"
    _, below = ntpath.splitdrive(path)
    for name in below.replace("/", "\\").split("\\"):
        problem = name_problem(name) if name not in ("", ".", "..") else None
        if problem is not None:
            return f"{problem}: {name!r:.80}; choose another name"
    length = len(ntpath.normpath(path))  # the system resolves .. before it counts
    if length > LONGEST and not long_paths:
        return (
            f"it has {length} characters, and Windows lets this program use {LONGEST}; use a shorter one, or enable "
            "long paths (LongPathsEnabled in the registry; the installer of Python offers it as “Disable path length "
            "limit”)"
        )
    return None


def usual(path: str) -> str:
    """Return an absolute path in the one spelling in which others can be compared with it.

    The system says where links lead with a prefix for paths that may be long, and where it cannot find out, a drive's
    letter stays as it was given.
    """
    if path.startswith(_VERBATIM + "UNC\\"):
        path = "\\" + path.removeprefix(_VERBATIM + "UNC")
    elif path[len(_VERBATIM) + 1 : len(_VERBATIM) + 2] == ":":
        path = path.removeprefix(_VERBATIM)
    drive, below = ntpath.splitdrive(path)
    return drive.upper() + below
