"""What pio asks of an operating system; what it asks of files and folders, `files` says."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pio.system.files import Files

if TYPE_CHECKING:
    import io
    import mmap

Machine = Literal["x86_64", "aarch64", "other"]


class Call(NamedTuple):
    """A function of the C library or the system that compiled code calls.

    Attributes:
        function: Its name.
        arguments: Integers, as they are; ``address`` and ``value``, of the word that a thread sleeps on; ``place``,
            where in memory that value lies; ``result``, where to write int64s.
    """

    function: str
    arguments: tuple[int | Literal["address", "value", "place", "result"], ...] = ()


class System(Files):
    """An operating system.

    Attributes:
        machine: The kind of processor that this interpreter was built for, by one name on all systems.
        sleep: Returns when the thread is woken, at once where the int32 at ``address`` is not ``value``, and may return
            at any time.
        wake: Wakes all who sleep on ``address``; None where nobody can be woken, and ``sleep`` is a nap.
        give_way: Lets another thread have this core.
        clock: Writes a time, which only goes forward, to ``result``.
        clock_units: Nanoseconds of each of the int64s that it writes.
        child_options: What to start a process with whose life no terminal ends.
        ending_signals: Numbers of the signals by which this process is asked to end, but for Ctrl-C.
        end_of_input: The keys that end what somebody types.
        redirected_encoding: Of standard streams that are no terminal, where nobody says; None leaves it to Python.
        core_limits: Why this process may use fewer cores than the machine has.
        packages: What it needs of other people's packages beside those that every system needs.
        thread_remedy: What gives this process more threads.
        memory_remedy: What gives this process more memory.
        places_objects: Whether object files can be laid into memory by `kernels._elf`.
    """

    machine: Machine
    sleep: Call
    wake: Call | None
    give_way: Call
    clock: Call
    clock_units: tuple[int, ...]
    child_options: ClassVar[Mapping[str, Any]]
    ending_signals: tuple[int, ...]
    end_of_input: str
    redirected_encoding: str | None = None
    core_limits: str
    packages: tuple[str, ...] = ()
    thread_remedy: str
    memory_remedy: str
    places_objects: bool = False

    # Compiled code

    def symbols(self) -> dict[str, int]:
        """Return addresses of functions that compiled code calls, where the linker does not find them by name."""
        return {}

    # Memory

    @abstractmethod
    def private_memory(self, nbytes: int) -> mmap.mmap:
        """Return zeroed memory of this process, which is taken page by page as it is touched.

        Raises:
            OSError: The system refuses it, or MemoryError.
        """

    def refuses_memory(self, error: OSError) -> bool:
        """Return whether an error says that the system has no memory left, or gives this process no more."""
        return error.errno in (errno.ENOMEM, errno.EAGAIN)  # the latter where too much would be locked

    def protect(self, address: int, nbytes: int, *, run: bool) -> None:
        """Have pages written to no more, from now on; needed where ``places_objects``.

        Args:
            address: Where they begin.
            nbytes: How many bytes.
            run: Whether they hold code.

        Raises:
            OSError: The system lets no memory be run that was written to.
        """
        raise NotImplementedError

    def function(self, name: str) -> int | None:
        """Return the address of a function of the C library, None if it has none; needed where ``places_objects``."""
        raise NotImplementedError

    def prefer_huge_pages(self, mapping: mmap.mmap) -> None:  # a system may have none
        """Ask for large pages, each of which is found once instead of 512 times; without any, small ones serve."""

    def drop_pages(self, mapping: mmap.mmap, first: int, nbytes: int) -> None:  # it is advice
        """Let pages of a mapped file go from this process's memory; they are read again when touched.

        Args:
            mapping: The mapped file.
            first: Byte to begin with, a multiple of the page size.
            nbytes: How many.
        """

    # This machine, this process

    @abstractmethod
    def name(self) -> str:
        """Return its name and version."""

    @abstractmethod
    def core_count(self) -> int:
        """Return how many cores this process may use, as far as the system limits it."""

    @abstractmethod
    def available_memory(self) -> int | None:
        """Return the bytes that can still be taken without swapping, or None where the system does not say."""

    @abstractmethod
    def processor_name(self) -> str:
        """Return the processor's name."""

    def processor_features(self) -> frozenset[str]:
        """Return what the processor can do by LLVM's names, as far as LLVM does not find it out itself."""
        return frozenset()

    def allow_matrix_tiles(self) -> bool:
        """Have this process and its forked children use the registers of AMX; return whether they may, from now on."""
        return False

    @abstractmethod
    def seconds_since_start(self) -> float | None:
        """Return the seconds since the system started this process, or None where it does not say."""

    @abstractmethod
    def peak_memory(self) -> int | None:
        """Return the most bytes that this process ever had in memory, mapped files included, or None where unknown."""

    @abstractmethod
    def huge_pages(self) -> tuple[str, str]:
        """Return what becomes of a wish for huge pages, and what to do about it, empty where all is well."""

    def at_fork(self, before: Callable[[], object], after: Callable[[], object]) -> None:  # a system may have no forks
        """Have functions called by a thread that forks, before it does, and after that in both processes."""

    # Terminals

    def takes_escapes(self, terminal: Any) -> bool:
        """Return whether a terminal, a stream of any kind, takes escape sequences; one that can is told to."""
        return True

    def input_pipe(self, descriptor: int) -> io.RawIOBase | None:
        """Return what reads a pipe while signal handlers run; None where this is none, or Python does so itself."""
        return None

    @abstractmethod
    def has_input(self, descriptor: int, seconds: float) -> bool:
        """Wait until a file, pipe or terminal has something to read, or its end; False where the time was over before.

        A terminal counts as ready where the system cannot wait for it.

        Raises:
            OSError: The descriptor is none of these; ValueError where it is none at all.
        """

    def has_more_typed(self) -> bool:
        """Return whether more lines came to the terminal with the last one that ``input`` gave, as of a paste."""
        return False

    def end_in_order(self) -> None:  # most let a process do that
        """Have the system wait, after one of ``ending_signals``, until this process has ended by itself."""

    @abstractmethod
    def quote(self, text: str) -> str:
        """Return a text as one argument of a command line."""

    def is_closed_pipe(self, error: OSError, descriptor: int) -> bool:
        """Return whether an error says that whoever reads what this process writes has gone.

        Args:
            error: What writing met.
            descriptor: What was written to.
        """
        return isinstance(error, BrokenPipeError)
