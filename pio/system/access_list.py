"""Access lists of Windows: who owns a file, who may change it, and whether that makes others able to have written it.

A security descriptor is read as the system gives it, one stretch of bytes; nothing here asks the system anything.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

SYSTEM, ADMINISTRATORS = "S-1-5-18", "S-1-5-32-544"
_OWNER_RIGHTS: Final = "S-1-3-4"  # whoever owns the file, and that is looked at
_INSTALLER: Final = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"  # of Windows itself
_OWN: Final = frozenset((SYSTEM, ADMINISTRATORS, _INSTALLER))
# Programs in a container: what they are granted counts only where their user is granted it too.
_CONTAINERS: Final = ("S-1-15-2-", "S-1-15-3-")
_NAMES: Final = {
    "S-1-1-0": "Everyone",
    "S-1-5-11": "Authenticated Users",
    "S-1-5-4": "Interactive",
    "S-1-5-7": "Anonymous",
    "S-1-5-32-545": "Users",
    "S-1-5-32-546": "Guests",
}
# Write or add, append, delete what lies in a folder, change the list, take the file; and what stands for these.
_CHANGES: Final = 0x2 | 0x4 | 0x40 | 0x4_0000 | 0x8_0000 | 0x200_0000 | 0x1000_0000 | 0x4000_0000
_INHERIT_ONLY: Final = 0x8  # such an entry is for what will be made in the folder
_LIST_PRESENT: Final = 0x4  # among the descriptor's control bits
_ALLOW, _ALLOW_IF = 0, 9  # kinds of entries; a condition may hold
_ALLOW_OTHERWISE: Final = (4, 5, 11)  # kinds that files do not have, and that allow something


class Entry(NamedTuple):
    """One entry of a list that lets somebody do something.

    Attributes:
        who: A user or group, as the system writes its number; None where the entry has a form that files do not use.
        rights: What is allowed, a bit each.
        inherit_only: Whether it holds only for what is made in the folder.
    """

    who: str | None
    rights: int
    inherit_only: bool


class Access(NamedTuple):
    """Who may do what with a file.

    Attributes:
        owner: Whose it is, None where nobody's.
        entries: Who else may do what; None where there is no list, and everybody may do everything.
    """

    owner: str | None
    entries: tuple[Entry, ...] | None


def parse(descriptor: bytes) -> Access:
    """Read a security descriptor in one piece, with its owner and its list.

    Raises:
        ValueError: It is none.
    """
    try:
        revision, _, control, owner, _, _, entries = struct.unpack_from("<BBHIIII", descriptor)
        if revision != 1:
            raise ValueError(f"a security descriptor of revision {revision}")
        found = tuple(_entries(descriptor, entries)) if control & _LIST_PRESENT and entries else None
        return Access(_number(descriptor, owner) if owner else None, found)
    except struct.error as error:
        raise ValueError("a security descriptor that ends early") from error


def distrust(access: Access, user: str, path: str, *, folder: bool) -> str | None:
    """Return why others than a user and the system's own can have written a file or folder; None if they cannot.

    Args:
        access: Who may do what with it.
        user: The user's number.
        path: Where it is, for the message.
        folder: Whether it is a folder.
    """
    trusted = _OWN | {user}
    if access.entries is None:  # a disk without lists also says that everyone owns everything
        return f"{path} can be written by anybody, for it has no access list (FAT and exFAT disks keep none)"
    if access.owner not in trusted:
        owner = "nobody" if access.owner is None else f"{_name(access.owner)}, and not to this user"
        return f"{path} belongs to {owner}; remove it, and it is made anew"
    others = dict.fromkeys(
        entry.who
        for entry in access.entries
        if entry.rights & _CHANGES and not entry.inherit_only and not _harmless(entry.who, trusted)
    )
    if not others:
        return None
    remove = "".join(f' /remove:g "*{who}"' for who in others if who is not None)
    rights = "(OI)(CI)F" if folder else "F"
    return (
        f"{path} can be written by {', '.join(map(_name, others))}; "
        f'icacls "{path}" /inheritance:r{remove} /grant:r "*{user}:{rights}"'
    )


def private(user: str) -> str:
    """Return, as the system writes it, the list of a folder that a user and the system's own have for themselves."""
    return "D:P" + "".join(f"(A;OICI;FA;;;{who})" for who in (SYSTEM, ADMINISTRATORS, user))


def _harmless(who: str | None, trusted: frozenset[str]) -> bool:
    return who is not None and (who in trusted or who == _OWNER_RIGHTS or who.startswith(_CONTAINERS))


def _name(who: str | None) -> str:
    if who is None:
        return "somebody whom pio cannot tell"
    return f"{_NAMES[who]} ({who})" if who in _NAMES else who


def _entries(descriptor: bytes, at: int) -> Iterator[Entry]:
    _, _, _, count, _ = struct.unpack_from("<BBHHH", descriptor, at)
    at += 8
    for _ in range(count):
        kind, flags, size, rights = struct.unpack_from("<BBHI", descriptor, at)
        if kind in (_ALLOW, _ALLOW_IF):
            yield Entry(_number(descriptor, at + 8), rights, bool(flags & _INHERIT_ONLY))
        elif kind in _ALLOW_OTHERWISE:
            yield Entry(None, rights, bool(flags & _INHERIT_ONLY))
        if size < 8:
            raise ValueError(f"an entry of {size} bytes")
        at += size


def _number(descriptor: bytes, at: int) -> str:
    """A user's or group's number, as the system writes it."""
    revision, count = struct.unpack_from("<BB", descriptor, at)
    authority = int.from_bytes(descriptor[at + 2 : at + 8], "big")
    return "-".join(map(str, ("S", revision, authority, *struct.unpack_from(f"<{count}I", descriptor, at + 8))))
