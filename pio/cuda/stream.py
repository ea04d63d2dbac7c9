"""A stream of a GPU: all is done in the order in which it was asked for, so nobody waits but who reads in Python."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from time import perf_counter
from typing import Any, Final

from pio.cuda.driver import Driver, Launch
from pio.cuda.dropped import Dropped
from pio.cuda.gpu import Gpu, gpu
from pio.cuda.pinned import Pinned
from pio.cuda.stage import Stage
from pio.cuda.turns import Turns
from pio.cuda.write_back import WriteBack
from pio.errors import DeviceError, OutOfMemoryError
from pio.memory.sizes import format_bytes

_lock: Final = threading.RLock()


class Stream:
    """Work for a GPU, in order, asked for by any thread.

    Attributes:
        gpu: Whose work it is.
        handle: The driver's name for it, which other libraries know too.
        kept: What lives as long as the stream does, by a name: kernels, records.
        held: Bytes of the GPU's memory that were allocated and are in use, by their addresses.
    """

    def __init__(self, gpu: Gpu, stage: int | None = None) -> None:
        """Make a stream without work.

        Args:
            gpu: Whose.
            stage: Bytes of each buffer by way of which memory of this process is copied.
        """
        self.gpu = gpu
        self.handle = gpu.enter().stream()
        self.kept: dict[Any, Any] = {}
        self.held: dict[int, int] = {}
        self._stage = Stage(gpu, self.handle) if stage is None else Stage(gpu, self.handle, stage)
        self._dropped = Dropped()
        self._closed = False

    @property
    def architecture(self) -> str:
        """What code is made for."""
        return self.gpu.architecture

    @property
    def multiprocessors(self) -> int:
        """How many the GPU has."""
        return self.gpu.facts.multiprocessors

    def load(self, code: bytes, entry: str, shared: int) -> int:
        """Return the handle of a kernel; see ``Driver.load``."""
        return self.begin().load(code, entry, shared)

    def launch(self, launch: Launch) -> None:
        """Run a kernel when all before it is done."""
        self.begin().launch(launch, self.handle)

    def graph(self, launches: Sequence[Launch]) -> Graph:
        """Return what does these launches in one call."""
        return Graph(self, launches)

    # Memory

    def allocate(self, nbytes: int, what: str = "a tensor") -> int:
        """Return the address of zeroed memory of the GPU.

        Raises:
            OutOfMemoryError: There is too little; nothing has changed.
        """
        driver = self.begin()
        try:
            address = self._allocated(driver, max(nbytes, 1))
        except OutOfMemoryError as error:
            free, total = driver.room()
            raise OutOfMemoryError(
                f"cuda:{self.gpu.ordinal} refused {format_bytes(nbytes)} for {what}: of its {format_bytes(total)} "
                f"{format_bytes(free)} are free, and pio holds {format_bytes(sum(self.held.copy().values()))}; "
                "free some, ask for less, or use device='cpu'"
            ) from error
        self.held[address] = nbytes
        driver.fill(address, 0, max(nbytes, 1), self.handle)
        return address

    def _allocated(self, driver: Driver, nbytes: int) -> int:
        try:
            return driver.allocate(nbytes, self.handle)
        except OutOfMemoryError:  # what was given back may not be there yet, or lie in pieces of other sizes
            driver.wait(self.handle)
            driver.trim()
            return driver.allocate(nbytes, self.handle)

    def room(self) -> int:
        """Return how many bytes of the GPU's memory are free, what was given back by now among them."""
        driver = self.begin()
        driver.wait(self.handle)
        return driver.room()[0]

    def give_back(self) -> None:
        """Give all memory back that nobody uses any more, also to other processes."""
        driver = self.begin()
        driver.wait(self.handle)
        driver.trim()

    def drop_later(self, release: Callable[[], object]) -> None:
        """Call this at the next call; from any thread at any moment."""
        self._dropped.add(release)

    def drop(self, address: int, *, shared: bool = False) -> None:
        """Give memory back, at the next call; from any thread at any moment.

        Args:
            address: Where it begins.
            shared: Whether other libraries got it, who may have work on it in streams of their own.
        """
        self._dropped.add(lambda: self._free(address, shared))

    def drop_foreign(self, release: Callable[[], object]) -> None:
        """Call what gives memory of another library back, once all work on it is done that was asked for by then."""

        def wait_and_release() -> None:
            self.gpu.enter().wait(self.handle)
            release()

        self._dropped.add(wait_and_release)

    def _free(self, address: int, shared: bool) -> None:
        driver = self.gpu.enter()
        if shared:
            driver.wait_all()
        self.held.pop(address)
        driver.free(address, self.handle)

    def copy_in(self, target: int, source: int, nbytes: int) -> None:
        """Copy from this process to the GPU; the source may change from here on."""
        self.begin()
        self._stage.copy_in(target, source, nbytes)

    def copy_out(self, target: int, source: int, nbytes: int) -> None:
        """Copy from the GPU to this process when all before it is done, and wait for that."""
        self.copy_out_all([(target, source, nbytes)])

    def copy_out_all(self, pieces: Iterable[tuple[int, int, int]]) -> None:
        """Copy pieces from the GPU to this process when all before is done, and wait for them together.

        Args:
            pieces: Of each the target, the source and its bytes.
        """
        driver = self.begin()
        for target, source, nbytes in pieces:
            if nbytes:
                driver.copy_out(target, source, nbytes, self.handle)
        driver.wait(self.handle)

    def pinned(self, nbytes: int, what: str) -> Pinned:
        """Return memory of this process for ``send`` and ``copy_out_all``; see ``Pinned``."""
        return Pinned(self, nbytes, what)

    def send(self, target: int, source: int, nbytes: int) -> None:
        """Copy from pinned memory to the GPU; the source must stay as it is until somebody has waited for a result."""
        if nbytes:
            self.begin().copy_in(target, source, nbytes, self.handle)

    def copy_seconds(self, count: int, nbytes: int) -> float:
        """Return how long so many copies from pinned memory take, of so many bytes each, by a measurement."""
        here, there = self.pinned(count * nbytes, "a measurement"), self.allocate(nbytes, "a measurement")
        begin = 0.0
        for _ in range(2):  # the first time is not like later ones
            self.wait()
            begin = perf_counter()
            for i in range(count):
                self.send(there, here.address + i * nbytes, nbytes)
        self.wait()
        seconds = perf_counter() - begin
        self.drop(there)
        return max(seconds, 1e-9)

    def turns(self, buffers: Sequence[int], sizes: Sequence[int]) -> Turns:
        """Return what brings items into buffers of the GPU just in time; see ``Turns``."""
        self.begin()
        return Turns(self, buffers, sizes)

    def write_back(self, nbytes: int) -> WriteBack:
        """Return a buffer by way of which bytes leave the GPU while it works; see ``WriteBack``."""
        self.begin()
        return WriteBack(self, nbytes)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy within the GPU, between memory that does not overlap."""
        if nbytes:
            self.begin().copy(target, source, nbytes, self.handle)

    def fill(self, address: int, value: int, nbytes: int) -> None:
        """Set bytes of the GPU's memory."""
        if nbytes:
            self.begin().fill(address, value, nbytes, self.handle)

    # Order

    def wait(self) -> None:
        """Wait until all is done.

        Raises:
            DeviceError: Something went wrong in it.
        """
        self.begin().wait(self.handle)

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long the GPU takes for what a function asks of it, and wait for that.

        What else is asked of the stream meanwhile counts too.

        Raises:
            DeviceError: Something went wrong in it.
        """
        first = self.begin().timer(self.handle)
        try:
            work()
            driver = self.begin()
            last = driver.timer(self.handle)
            try:
                driver.await_event(last)
                return driver.elapsed(first, last)
            finally:
                driver.end_event(last)
        finally:
            self.gpu.enter().end_event(first)

    def let_follow(self, other: int) -> None:
        """Let a stream, such as another library's, go on only when all is done that was asked of this one by now."""
        driver = self.begin()
        event = driver.event(self.handle)
        driver.wait_event(other, event)
        driver.end_event(event)

    def begin(self) -> Driver:
        """Return whom to ask, once what was dropped is given back.

        Raises:
            DeviceError: The stream was closed, or the GPU cannot be used any more.
        """
        driver = self.gpu.enter()
        if self._closed:
            raise DeviceError(
                f"the stream of cuda:{self.gpu.ordinal} was closed, and with it all that lay there; go on with "
                "device='cpu', or in another process"
            )
        self._dropped.give_back()
        return driver

    def close(self) -> None:
        """Wait for all work, and give back the stream and its memory; tensors there cannot be used any more."""
        if self._closed:
            return
        driver = self.begin()
        driver.wait_all()  # copies beside it, too, which read memory that is freed below
        self.kept.clear()
        self.begin()  # what that has dropped
        for address in list(self.held):
            self._free(address, shared=False)
        driver.wait(self.handle)
        self._stage.close()
        self._closed = True
        driver.end_stream(self.handle)


class Graph:
    """Launches that are done in one call of the driver."""

    def __init__(self, stream: Stream, launches: Sequence[Launch]) -> None:
        """Make it; nothing runs yet."""
        self._stream = stream
        self._handle = stream.begin().graph(launches)

    def run(self) -> None:
        """Do them when all before them is done."""
        stream = self._stream
        stream.begin().run_graph(self._handle, stream.handle)

    def __del__(self) -> None:
        handle, stream = getattr(self, "_handle", 0), self._stream
        if handle:
            stream.drop_later(lambda: stream.gpu.enter().end_graph(handle))


@cache
def _stream(ordinal: int) -> Stream:
    return Stream(gpu(ordinal))


def stream(ordinal: int) -> Stream:
    """Return the stream of this machine's GPU of that number, always the same one.

    Raises:
        DeviceError: There is no such GPU, no driver, or the driver or the GPU is too old.
    """
    with _lock:
        return _stream(ordinal)
