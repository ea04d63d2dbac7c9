"""Access lists, as bytes that Windows hands out for the lists that its documentation writes as text."""

import struct

import pytest

from pio.system.access_list import Access, Entry, distrust, parse, private

ME, OTHER = "S-1-5-21-111-222-333-1001", "S-1-5-21-111-222-333-1002"
SYSTEM, ADMINISTRATORS, INSTALLER = (
    "S-1-5-18",
    "S-1-5-32-544",
    "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",
)
EVERYONE, AUTHENTICATED, USERS = "S-1-1-0", "S-1-5-11", "S-1-5-32-545"
CREATOR, OWNER_RIGHTS, CONTAINER = "S-1-3-0", "S-1-3-4", "S-1-15-2-1-2-3"
FULL, MODIFY, READ = 0x1F01FF, 0x1301BF, 0x1200A9
DENY, INHERIT_ONLY = 1, 0x0B


def number(sid):
    revision, authority, *parts = map(int, sid.split("-")[1:])
    return (
        struct.pack("<BB", revision, len(parts)) + authority.to_bytes(6, "big") + struct.pack(f"<{len(parts)}I", *parts)
    )


def descriptor(owner, entries):
    """Bytes as GetFileSecurity gives them; an entry is who, rights, and where it differs, flags and kind."""
    aces = b""
    for who, rights, *rest in entries or ():
        flags, kind = [*rest, 0, 0][:2] if len(rest) != 1 else (rest[0], 0)
        body = struct.pack("<I", rights) + number(who)
        aces += struct.pack("<BBH", kind, flags, 4 + len(body)) + body
    acl = b"" if entries is None else struct.pack("<BBHHH", 2, 0, 8 + len(aces), len(entries), 0) + aces
    mine = b"" if owner is None else number(owner)
    at = 20 + len(mine)
    return struct.pack("<BBHIIII", 1, 0, 0x8004, 20 if mine else 0, 0, 0, at if acl else 0) + mine + acl


OWN = [(SYSTEM, FULL), (ADMINISTRATORS, FULL), (ME, FULL)]
TRUSTED = {
    "a folder of a profile": (ME, OWN),
    "made by an administrator": (ADMINISTRATORS, OWN),
    "of the system": (SYSTEM, [(SYSTEM, FULL), (USERS, READ)]),
    "of Windows itself": (INSTALLER, [(INSTALLER, FULL), (USERS, READ)]),
    "readable by all": (ME, [*OWN, (EVERYONE, READ), (AUTHENTICATED, READ)]),
    "made by Python 3.13 with mode 0o700": (ME, [(SYSTEM, FULL), (ADMINISTRATORS, FULL), (OWNER_RIGHTS, FULL)]),
    "with what new files get": (ME, [*OWN, (CREATOR, FULL, INHERIT_ONLY), (AUTHENTICATED, MODIFY, INHERIT_ONLY)]),
    "of an app from the store": (ME, [*OWN, (CONTAINER, FULL)]),
    "that denies": (ME, [(EVERYONE, FULL, 0, DENY), *OWN]),
    "that nobody may use": (ME, []),
    "whose attributes others may set": (ME, [*OWN, (USERS, READ | 0x110)]),
}
DISTRUSTED = {
    "below the root of a second drive": (
        ADMINISTRATORS,
        [*OWN, (AUTHENTICATED, MODIFY)],
        "Authenticated Users (S-1-5-11)",
    ),
    "for everybody": (ME, [*OWN, (EVERYONE, FULL)], "Everyone (S-1-1-0)"),
    "of another user": (OTHER, OWN, f"belongs to {OTHER}, and not to this user; remove it, and it is made anew"),
    "of nobody": (None, OWN, "belongs to nobody; remove it, and it is made anew"),
    "for another user": (ME, [*OWN, (OTHER, 0x2)], OTHER),
    "to append to": (ME, [*OWN, (USERS, 0x4)], "Users"),
    "to delete from": (ME, [*OWN, (USERS, 0x40)], "Users"),
    "whose list others set": (ME, [*OWN, (USERS, 0x40000)], "Users"),
    "that others may take": (ME, [*OWN, (USERS, 0x80000)], "Users"),
    "to write by a general right": (ME, [*OWN, (USERS, 0x40000000)], "Users"),
    "for all by a general right": (ME, [*OWN, (USERS, 0x10000000)], "Users"),
    "on a condition": (ME, [*OWN, (USERS, FULL, 0, 9)], "Users"),
    "by an entry of another kind": (ME, [*OWN, (USERS, FULL, 0, 5)], "somebody whom pio cannot tell"),
    "without a list": (ME, None, "can be written by anybody, for it has no access list"),
    "on a disk that keeps no lists": (EVERYONE, None, "can be written by anybody, for it has no access list"),
}


@pytest.mark.parametrize("case", TRUSTED)
def test_what_is_trusted(case):
    owner, entries = TRUSTED[case]
    assert distrust(parse(descriptor(owner, entries)), ME, "C:\\x", folder=True) is None


@pytest.mark.parametrize("case", DISTRUSTED)
def test_what_is_not_trusted(case):
    owner, entries, words = DISTRUSTED[case]
    reason = distrust(parse(descriptor(owner, entries)), ME, "C:\\x", folder=True)
    assert reason is not None and reason.startswith("C:\\x ") and words in reason


def test_the_remedy_takes_what_others_have_and_gives_what_this_user_needs():
    access = parse(descriptor(ME, [*OWN, (EVERYONE, FULL), (USERS, MODIFY), (EVERYONE, MODIFY)]))
    remedy = ' /inheritance:r /remove:g "*S-1-1-0" /remove:g "*S-1-5-32-545" /grant:r '
    for folder, rights in ((True, "(OI)(CI)F"), (False, "F")):
        reason = distrust(access, ME, "C:\\x y", folder=folder)
        assert reason is not None and reason.endswith(f'; icacls "C:\\x y"{remedy}"*{ME}:{rights}"')


def test_what_a_list_of_bytes_says():
    entries = [(ME, FULL), (EVERYONE, READ, INHERIT_ONLY)]
    expected = (Entry(ME, FULL, inherit_only=False), Entry(EVERYONE, READ, inherit_only=True))
    assert parse(descriptor(OTHER, entries)) == Access(OTHER, expected)
    assert parse(struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)) == Access(None, None)


@pytest.mark.parametrize("cut", [0, 3, 19, 24, 50, 60, -1])
def test_bytes_that_end_early(cut):
    with pytest.raises(ValueError, match="descriptor"):
        parse(descriptor(ME, OWN)[:cut])
    with pytest.raises(ValueError, match="descriptor"):
        parse(b"\2" + descriptor(ME, OWN)[1:])


def test_the_list_of_a_private_folder():
    assert private(ME) == f"D:P(A;OICI;FA;;;S-1-5-18)(A;OICI;FA;;;S-1-5-32-544)(A;OICI;FA;;;{ME})"
