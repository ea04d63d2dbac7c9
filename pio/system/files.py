"""What pio asks of an operating system's files and folders."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

UNFINISHED: Final = r"\.[0-9a-f]{12}\.tmp"  # what a name of ``replacing`` ends with, as a pattern


class Files(ABC):
    """The files of an operating system.

    Attributes:
        read_flags: What to open a file with, so that reading gives its bytes, a child does not inherit it, and what is
            no file cannot block.
        permission_remedy: How this user gets the right to read a file, in a few words.
    """

    read_flags: int
    permission_remedy: str

    @abstractmethod
    def read_at(self, descriptor: int, target: memoryview, position: int) -> int:
        """Read bytes of an open file from a position on; return how many, 0 at its end.

        Raises:
            OSError: They cannot be read.
        """

    def read_scattered(self, descriptor: int, targets: Sequence[memoryview], position: int) -> int:
        """Read bytes of an open file into several places, one behind the other; return how many, fewer at its end.

        Raises:
            OSError: They cannot be read.
        """
        begin = position
        for target in targets:
            done = 0
            while done < len(target):
                count = self.read_at(descriptor, target[done:], position)
                if count == 0:
                    return position - begin
                done, position = done + count, position + count
        return position - begin

    @abstractmethod
    def cache_folder(self) -> Path:
        """Return the user's own folder for what programs can make again.

        Raises:
            OSError: This user has none.
        """

    def real_path(self, path: str | os.PathLike[str]) -> str:
        """Return a path without links, in the one spelling in which paths can be compared.

        Raises:
            OSError: The system does not say where it leads.
        """
        return os.path.realpath(path)

    def name_problem(self, name: str) -> str | None:
        """Return why no file in a folder has a name, for a message; None where one may.

        Args:
            name: Without separators of any system, printable, and not longer than 255 characters.
        """
        return None

    def path_problem(self, path: str | os.PathLike[str]) -> str | None:
        """Return why nothing can be at a path, and what to do; None where something may."""
        return None

    def file_problem(self, path: str | os.PathLike[str], error: OSError, *, writing: bool = False) -> str | None:
        """Return what an error means for a file and what to do, where its kind in Python tells less than the system.

        Args:
            path: The file or folder.
            error: What it met.
            writing: Whether it was to be written, replaced or removed.
        """
        return None

    def may_write(self, folder: Path) -> bool:
        """Return whether this user may make files in a folder."""
        return os.access(folder, os.W_OK)

    @abstractmethod
    def distrust(self, path: Path, descriptor: int | None) -> str | None:
        """Return why others than this user and the system's own can have written a file or folder; None if they cannot.

        Args:
            path: The file or folder.
            descriptor: Of the file, where it is open: then it is asked, for another may lie at the path meanwhile.

        Raises:
            OSError: The system does not say.
        """

    @abstractmethod
    def make_private_folder(self, folder: Path) -> None:
        """Make a folder in which nobody but this user and the system's own can write.

        Raises:
            OSError: It is there, or cannot be made.
        """

    def replace(self, source: Path, target: Path) -> None:
        """Put a file in another's place, in one step.

        Raises:
            OSError: The system could not; ``strerror`` says why.
        """
        os.replace(source, target)

    @contextmanager
    def replacing(self, target: Path) -> Generator[Path]:
        """Give a path beside a file, and put what is written there in its place: as a whole, or not at all.

        What is at that path is removed where the block raises, or the file cannot be replaced. A process that dies in
        between leaves it, under a name that matches ``UNFINISHED``.

        Raises:
            OSError: The system could not put it there; ``strerror`` says why.
        """
        beside = target.with_name(f"{target.name}.{os.urandom(6).hex()}.tmp")
        try:
            yield beside
            self.replace(beside, target)
        except BaseException:
            self.discard(beside)
            raise

    def discard(self, path: Path) -> None:
        """Remove a file that is of no more use, if it is there and the system lets it go; raises nothing."""
        with suppress(OSError):
            os.unlink(path)

    def remove_folder(self, folder: Path) -> None:
        """Remove a folder that is of no more use with all that is in it, as far as the system lets it go."""
        import shutil

        shutil.rmtree(folder, ignore_errors=True)

    @abstractmethod
    def move_folder(self, source: Path, target: Path) -> None:
        """Give a folder another name: that of an empty one, or one that is not in use.

        Raises:
            OSError: There is something else of that name, or the system could not.
        """

    @abstractmethod
    def sync_folder(self, folder: str | os.PathLike[str]) -> None:
        """Put a folder's list of files on the disk.

        Raises:
            OSError: The system could not.
        """

    @abstractmethod
    def lock_folder(self, folder: Path, *, needed: bool = False) -> int | None:
        """Lock a folder until ``unlock_folder``, or until this process ends; None where another process has it.

        Args:
            folder: One that is there, and of this user.
            needed: Return None also where the file system has no such locks.

        Raises:
            OSError: It cannot be opened.
        """

    @abstractmethod
    def unlock_folder(self, folder: Path, lock: int) -> None:
        """Give a lock back; the folder may have gone, or have another name."""
