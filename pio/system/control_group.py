"""Control groups: how much processor time and memory the system grants this process, at any depth of their tree.

There are two kinds. In version 1 each controller has a tree of its own; in version 2 all share one. Both may be mounted
at once. A process is in one group of each tree, and the limits of every group above hold for it too, as far as they can
be seen from where it runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
_USUAL = "sys/fs/cgroup"
_UNLIMITED = 1 << 60  # version 1 has a number of this order where there is no limit
_MOST = 1 << 20  # bytes of a system file that are looked at
_ESCAPED = re.compile(r"\\([0-7]{3})")  # how mountinfo writes spaces


class _Group(NamedTuple):
    """A group that this process is in or below.

    Attributes:
        folder: Where the system shows it; a text, for its files are read at every call.
        version: 1 or 2.
        own: Whether the process is in it, and not in one below.
    """

    folder: str
    version: int
    own: bool

    def text(self, name: str) -> str:
        """Return what a file says, empty where there is none."""
        return read(f"{self.folder}/{name}")

    def number(self, name: str) -> int | None:
        """Return the number in a file, or None where there is none or it sets no limit."""
        text = self.text(name).strip()
        return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many cores' time this process may use, or None where nothing limits it.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = [quota for group in _groups(root, "cpu") if (quota := _quota(group)) is not None]
    return min(found, default=None)


def free_memory(root: Path = ROOT) -> int | None:
    """Return the bytes that this process's groups may still take, or None where nothing limits them.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = [free for group in _groups(root, "memory") if (free := _free(group)) is not None]
    return min(found, default=None)


def read(path: str | Path) -> str:
    """Return the text of a small system file, empty where this system has none."""
    try:
        with open(path, "rb", buffering=0) as file:
            parts: list[bytes] = []
            while sum(map(len, parts)) < _MOST and (part := file.read(1 << 16)):
                parts.append(part)  # the system hands some files out page by page
    except OSError:
        return ""
    return b"".join(parts).decode("utf-8", "surrogateescape")


def _quota(group: _Group) -> float | None:
    if group.version == 2:
        quota, _, period = group.text("cpu.max").strip().partition(" ")
    else:
        quota = group.text("cpu.cfs_quota_us").strip()
        period = group.text("cpu.cfs_period_us").strip()
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None  # max, or -1
    return int(quota) / int(period)


def _free(group: _Group) -> int | None:
    if group.version == 2:
        limits, used, prefix = [group.number("memory.max"), group.number("memory.high")], "memory.current", ""
        if limits == [None, None]:
            return None  # before its statistics are read, which the system has to add up
        fields = _fields(group.text("memory.stat"))
    else:
        limits, used, prefix = [group.number("memory.limit_in_bytes")], "memory.usage_in_bytes", "total_"
        fields = _fields(group.text("memory.stat"))
        # the least of all above, also of those that cannot be seen
        limits += [limit] if 0 < (limit := fields.get("hierarchical_memory_limit", 0)) < _UNLIMITED else []
        if not group.own and group.text("memory.use_hierarchy").strip() == "0":
            return None  # it limits its own processes only
    known = [limit for limit in limits if limit is not None]
    taken = group.number(used) if known else None
    if taken is None:
        return None
    # files that were read count as used, and are dropped for whoever needs memory
    files = fields.get(f"{prefix}active_file", 0) + fields.get(f"{prefix}inactive_file", 0)
    return max(0, min(known) - taken + min(files, taken))


def _fields(statistics: str) -> dict[str, int]:
    """The fields of ``memory.stat``."""
    words = statistics.split()
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=False) if value.isdigit()}


def _groups(root: Path, controller: str) -> tuple[_Group, ...]:
    """The groups of this process that a controller may limit, from the inside out."""
    return _found(root, controller, read(root / "proc/self/cgroup"))


@lru_cache(maxsize=4)
def _found(root: Path, controller: str, memberships: str) -> tuple[_Group, ...]:
    """Find groups: as long as a process stays in them, their files have the same paths."""
    return tuple(group for group in _visible(root, controller, memberships) if os.path.isdir(group.folder))


def _visible(root: Path, controller: str, memberships: str) -> Iterator[_Group]:
    lines = memberships.splitlines() or ["0::/", f"1:{controller}:/"]
    mounts = list(_mounts(root))
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and controller not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        if version == 1:
            usual = [f"{_USUAL}/{controllers}", f"{_USUAL}/{controller}"]
        else:
            usual = [_USUAL, f"{_USUAL}/unified"]
        places = [(Path("/"), root / place) for place in usual]  # where mountinfo tells of none
        places += [(top, folder) for kind, top, folder in mounts if controller in kind or (version == 2 and not kind)]
        seen = set[Path]()
        for top, folder in places:
            for inside in _inside_out(Path(path), top):
                if (group := folder / inside) not in seen:
                    seen.add(group)
                    yield _Group(str(group), version, own=inside == _below(Path(path), top))


def _inside_out(path: Path, top: Path) -> Iterator[Path]:
    """A group and those above it, relative to the one that is mounted."""
    below = _below(path, top)
    yield from (below, *below.parents)


def _below(path: Path, top: Path) -> Path:
    """A path below the mounted group; where it is not below, as in a container, that one is all there is to see."""
    below = path.is_relative_to(top) and path.relative_to(top)
    return below if below and ".." not in below.parts else Path()


def _mounts(root: Path) -> Iterator[tuple[frozenset[str], Path, Path]]:
    """Mounted trees: their controllers, none in version 2; the group that is mounted; and where."""
    for line in read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) > 4 and kind[0] in ("cgroup", "cgroup2"):
            controllers = frozenset(kind[2].split(",")) if kind[0] == "cgroup" and len(kind) > 2 else frozenset[str]()
            yield controllers, Path(_plain(fields[3])), root / _plain(fields[4]).lstrip("/")


def _plain(path: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), path)
