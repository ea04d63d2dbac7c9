"""What tests need of a system that not every one has; it is asked for by trying, and a test that lacks it says so.

@needs_symlinks
def test_a_link_to_a_folder(tmp_path): ...
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest


def link(path: Path, target: str | Path) -> None:
    """Make a symbolic link; of its target's separators Windows follows only its own."""
    path.symlink_to(Path(target))


def _works(attempt: Callable[[Path], bool]) -> bool:
    """Return whether something can be done in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return attempt(Path(folder))
        except (OSError, NotImplementedError, AttributeError):
            return False


def _links(folder: Path) -> bool:
    (folder / "file").touch()
    link(folder / "link", "file")
    return (folder / "link").is_symlink() and (folder / "link").exists()


def _capitals(folder: Path) -> bool:
    (folder / "file").touch()
    return not (folder / "FILE").exists()


def _modes(folder: Path) -> bool:
    (folder / "file").touch()
    (folder / "file").chmod(0o640)
    return (folder / "file").stat().st_mode & 0o777 == 0o640


def _replaces_open_files(folder: Path) -> bool:
    for name in ("new", "old"):
        (folder / name).touch()
    with open(folder / "old", "rb"):
        (folder / "new").replace(folder / "old")
    return True


def _wide_names(folder: Path) -> bool:
    (folder / "modèle").touch()
    return os.listdir(folder) == ["modèle"]


def _needs(there: bool, what: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not there, reason=f"needs {what}")


# Files
SYMLINKS = _works(_links)
needs_symlinks = _needs(SYMLINKS, "symbolic links, which this user or this file system cannot make")
needs_capitals = _needs(_works(_capitals), "a file system in which capitals count")
needs_wide_names = _needs(_works(_wide_names), "files whose names have letters beyond ASCII")
needs_modes = _needs(_works(_modes), "files that say who may read and write them in nine bits")
needs_replaceable_files = _needs(
    _works(_replaces_open_files), "a system that lets files be replaced or removed while they are open or mapped"
)
needs_fifos = _needs(hasattr(os, "mkfifo"), "pipes that have names in a folder")
needs_root = _needs(hasattr(os, "geteuid") and os.geteuid() == 0, "root, who may give files away")
needs_limits = _needs(find_spec("resource") is not None, "limits that a process sets itself (resource)")
# Processes
needs_fork = _needs(hasattr(os, "fork"), "fork")
needs_scripts = _needs(os.name == "posix", "programs that are scripts with #! in their first line")
needs_proc = _needs(sys.platform == "linux" and os.path.exists("/proc/self/status"), "/proc of Linux")
needs_terminals = _needs(find_spec("termios") is not None, "terminals made by a program (pty)")
# Signals
needs_signals = _needs(os.name == "posix", "signals that one process sends another, which has a handler for them")
needs_user_signals = _needs(hasattr(signal, "SIGUSR1"), "SIGUSR1")
needs_thread_signals = _needs(hasattr(signal, "pthread_kill"), "signals that interrupt one thread (pthread_kill)")
needs_alarm = _needs(hasattr(signal, "setitimer"), "a timer that sends SIGALRM")
# Systems, for what pio says or does on one alone
on_linux = _needs(sys.platform == "linux", "Linux")
on_windows = _needs(sys.platform == "win32", "Windows")
