"""What pio asks of CUDA's driver: a few calls, so that tests can answer in its place and see every one of them.

Addresses, handles and sizes are integers. Work is put into streams and done in their order; whoever reads a result in
Python waits for the stream first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

NO_PINNED: Final = (
    "the system refused {} bytes of memory that a GPU reads by itself (pinned memory): free memory of this machine, or "
    "raise what a container or a service may have of it"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a GPU is.

    Attributes:
        name: As its maker calls it.
        capability: Such as (9, 0).
        multiprocessors: How many there are.
        nbytes: Of its memory.
        shared: Bytes of shared memory that a block may have.
        identity: Tells it from others, also behind a restart.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    nbytes: int
    shared: int
    identity: str


class Launch(NamedTuple):
    """A kernel's launch.

    Attributes:
        kernel: Its handle.
        grid: Blocks.
        block: Threads of each.
        shared: Bytes of shared memory of each.
        letters: One for each parameter, ``q`` for an int64 and ``d`` for a float64.
        values: The arguments, eight bytes each.
    """

    kernel: int
    grid: int
    block: int
    shared: int
    letters: str
    values: bytes


class Driver(Protocol):
    """The calls; all raise ``DeviceError`` where the driver refuses, ``OutOfMemoryError`` where memory is short.

    Attributes:
        code: What ``load`` takes, as NVIDIA names it in an architecture: ``"sm"`` is machine code, ``"compute"`` PTX.
    """

    code: str

    def version(self) -> tuple[int, int]:
        """Return the newest CUDA that it serves, such as (13, 0)."""
        ...

    def count(self) -> int:
        """Return how many GPUs there are."""
        ...

    def facts(self, ordinal: int) -> Facts:
        """Say what a GPU is."""
        ...

    def open(self, ordinal: int) -> int:
        """Return the handle of a GPU's context, which this process shares with others who use the GPU."""
        ...

    def enter(self, context: int) -> None:
        """Make a context that of the calling thread."""
        ...

    def room(self) -> tuple[int, int]:
        """Return how many bytes of the context's GPU are free for this process, and how many there are.

        What was given back, and is kept for what this process asks for next, is free for it.
        """
        ...

    def trim(self) -> None:
        """Give what is kept so to whoever asks for it, in other processes too."""
        ...

    def stream(self) -> int:
        """Make a stream; it waits for no other."""
        ...

    def end_stream(self, stream: int) -> None:
        """Give a stream back when its work is done."""
        ...

    def wait(self, stream: int) -> None:
        """Wait until all work of a stream is done, and raise what went wrong in it."""
        ...

    def event(self, stream: int, *, sleeps: bool = False) -> int:
        """Return a mark behind what is in a stream by now.

        Args:
            stream: Which one.
            sleeps: Whether a thread that waits for it sleeps; else it looks again and again, which takes a processor.
        """
        ...

    def wait_event(self, stream: int, event: int) -> None:
        """Let a stream go on only when that mark is reached."""
        ...

    def await_event(self, event: int) -> None:
        """Wait until that mark is reached."""
        ...

    def timer(self, stream: int) -> int:
        """Return a mark behind what is in a stream by now, which knows when it was reached."""
        ...

    def elapsed(self, first: int, last: int) -> float:
        """Return the seconds between two such marks, both of which are reached."""
        ...

    def end_event(self, event: int) -> None:
        """Give a mark back."""
        ...

    def wait_all(self) -> None:
        """Wait until all work of the context is done, that of other libraries' streams too."""
        ...

    def allocate(self, nbytes: int, stream: int) -> int:
        """Return the address of memory of the GPU that work of a stream may use from here on; 256 divides it."""
        ...

    def free(self, address: int, stream: int) -> None:
        """Give memory back behind what is in a stream by now."""
        ...

    def allocate_host(self, nbytes: int) -> int:
        """Return the address of memory of this process that a GPU reads and writes by itself."""
        ...

    def free_host(self, address: int) -> None:
        """Give such memory back; nothing may be under way to or from it."""
        ...

    def copy_in(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Copy from memory that ``allocate_host`` gave; it must stay as it is until the stream has done it."""
        ...

    def copy_out(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Copy from the GPU to this process, whose memory must be there until the stream has done it."""
        ...

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Copy within the GPU; the two must not overlap."""
        ...

    def copy_all(self, pieces: Sequence[tuple[int, int, int]], stream: int) -> None:
        """Copy pieces within the GPU, in any order among them.

        Args:
            pieces: One at least. Of each the target, the source and its bytes, one or more; none overlaps any other.
            stream: In whose order all of them are copied.
        """
        ...

    def fill(self, address: int, value: int, nbytes: int, stream: int) -> None:
        """Set bytes of the GPU's memory."""
        ...

    def load(self, code: bytes, entry: str, shared: int) -> int:
        """Return the handle of a kernel.

        Args:
            code: Machine code for the GPU, or PTX.
            entry: The kernel's name in it.
            shared: Bytes of shared memory that launches will ask for, at most.
        """
        ...

    def launch(self, launch: Launch, stream: int) -> None:
        """Run a kernel in a stream's order; its arguments are not looked at any more behind the call."""
        ...

    def graph(self, launches: Sequence[Launch]) -> int:
        """Return the handle of launches that are done in one call, each when the one before it is done.

        It is made of these alone, whatever other threads ask of the GPU meanwhile.
        """
        ...

    def run_graph(self, graph: int, stream: int) -> None:
        """Put these launches into a stream."""
        ...

    def end_graph(self, graph: int) -> None:
        """Give a graph back; runs that are under way are finished."""
        ...
