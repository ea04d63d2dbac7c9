"""A driver of GPUs that there are not: it answers what pio asks, runs kernels by the interpreter, and sees misuse.

Work waits in its stream until somebody waits for it, so that whoever reads too early finds rubbish. Where work of two
streams touches the same memory and nothing makes the one wait for the other, that is an error, whatever comes of it.
An error of pio's is a ``Misuse``, which is none of its own errors: it ends the test.
"""

from __future__ import annotations

import bisect
import ctypes
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from order import Order, Stamp
from ptx import Memory, Module

from pio.cuda.driver import NO_PINNED, Facts, Launch
from pio.errors import DeviceError, OutOfMemoryError

RUBBISH = 0xA5  # what fresh memory is full of
ALIGNMENT = 256
FOREIGN = (1, 2)  # streams that are always there: CUDA's default stream, and that of the thread


class Misuse(AssertionError):
    """Pio asked for what a real driver would answer by chance, or not survive."""


@cache
def _module(code: bytes) -> Module:
    return Module(code.decode())


@dataclass
class Block:
    """Memory that was allocated; the buffer is never reused, so that an address means one block for ever."""

    nbytes: int
    gpu: int
    buffer: Any = None
    alive: bool = True  # as far as work goes that was asked for


Touched = tuple[Iterable[int], Iterable[int]]  # addresses in memory that work has read, and those it has written
Work = Callable[[], Touched]
NOTHING: Touched = ((), ())


@dataclass
class Queue:
    """A stream."""

    gpu: int
    handle: int
    work: list[tuple[Stamp, Work]] = field(default_factory=list[tuple[Stamp, Work]])


@dataclass
class Event:
    """A mark in a stream."""

    queue: Queue
    stamp: Stamp
    done: bool = False
    timed: bool = False
    reached: float = 0.0


class DeviceMemory(Memory):
    """Memory of a GPU: what a kernel that the driver launches may touch.

    Attributes:
        is_a_gpu: It is.
    """

    is_a_gpu = True


@dataclass
class Kernel:
    """A kernel that was loaded."""

    module: Module
    entry: str
    shared: int


def facts(name: str = "Fake GPU", capability: tuple[int, int] = (9, 0), nbytes: int = 64 << 20) -> Facts:
    """Return what a small GPU is."""
    return Facts(name, capability, multiprocessors=1, nbytes=nbytes, shared=227 << 10, identity=f"fake {name}")


class FakeDriver:
    """See ``pio.cuda.driver.Driver``.

    Attributes:
        code: It takes PTX.
        gpus: What GPUs there are; a test may bend them.
        lost: What every call says, where a test has taken the GPUs away.
        calls: Names of the calls so far.
        pinned: Bytes of this process that GPUs may be let read by themselves.
        sent: Bytes of all copies to GPUs that were asked for so far.
        most: The most bytes of each GPU's memory that were in use at once.
        spare: Bytes of each GPU that were freed, and that this process keeps from others.
    """

    def __init__(self, *gpus: Facts, version: tuple[int, int] = (13, 0)) -> None:
        self.code = "compute"
        self.gpus = list(gpus) or [facts()]
        self.lost = ""
        self.calls: list[str] = []
        self.pinned = 1 << 40
        self.sent = 0
        self.most = [0] * len(self.gpus)
        self.spare = [0] * len(self.gpus)
        self._version = version
        self._memories = [DeviceMemory() for _ in self.gpus]
        self._blocks: dict[int, Block] = {}
        self._starts: list[int] = []
        self._pinned: dict[int, Any] = {}
        self._copied: Counter[int] = Counter()  # copies under way from and to each of these
        self._queues: dict[int, Queue] = {}
        self._events: dict[int, Event] = {}
        self._kernels: dict[int, Kernel] = {}
        self._graphs: dict[int, list[tuple[str, Work]]] = {}
        self._order = Order()
        self._handles = iter(range(1000, 10**9))
        self._entered = threading.local()
        self._lock = threading.RLock()

    # What is there

    def version(self) -> tuple[int, int]:
        return self._version

    def count(self) -> int:
        return len(self.gpus)

    def facts(self, ordinal: int) -> Facts:
        return self.gpus[ordinal]

    def open(self, ordinal: int) -> int:
        self._say("open")
        return ordinal + 1

    def enter(self, context: int) -> None:
        self._say("enter")
        if not 1 <= context <= len(self.gpus):
            raise Misuse(f"there is no context {context}")
        self._entered.gpu = context - 1

    def room(self) -> tuple[int, int]:
        gpu = self._begin("room")
        return self.gpus[gpu].nbytes - self._used(gpu), self.gpus[gpu].nbytes

    def trim(self) -> None:
        self.spare[self._begin("trim")] = 0

    def _used(self, gpu: int) -> int:
        return sum(block.nbytes for block in self._blocks.values() if block.alive and block.gpu == gpu)

    # Streams

    def stream(self) -> int:
        gpu, handle = self._begin("stream"), next(self._handles)
        self._queues[handle] = Queue(gpu, handle)
        return handle

    def end_stream(self, stream: int) -> None:
        queue = self._queue("end_stream", stream)
        self._run(queue)
        del self._queues[stream]

    def wait(self, stream: int) -> None:
        queue = self._queue("wait", stream)
        self._run(queue)
        with self._lock:
            self._order.waited(stream)

    def wait_all(self) -> None:
        gpu = self._begin("wait_all")
        for handle, queue in self._queues.items():
            if queue.gpu == gpu:
                self._run(queue)
                self._order.waited(handle)

    def event(self, stream: int, *, sleeps: bool = False) -> int:
        return self._mark("event", stream, timed=False)

    def timer(self, stream: int) -> int:
        return self._mark("timer", stream, timed=True)

    def elapsed(self, first: int, last: int) -> float:
        self._begin("elapsed")
        marks = self._event(first), self._event(last)
        if not all(mark.timed and mark.done for mark in marks):
            raise Misuse("a time is asked for of marks that were not reached, or that know none")
        return marks[1].reached - marks[0].reached

    def _mark(self, call: str, stream: int, *, timed: bool) -> int:
        queue, handle = self._queue(call, stream), next(self._handles)

        def reach() -> Touched:
            event.done, event.reached = True, time.perf_counter()
            return NOTHING

        event = Event(queue, self._put(queue, "an event", reach), timed=timed)
        self._events[handle] = event
        return handle

    def wait_event(self, stream: int, event: int) -> None:
        self._begin("wait_event")
        mark = self._event(event)
        if stream in FOREIGN:  # whose work nobody sees: it is done at once
            self._reach(mark)
            return
        queue = self._queue("wait_event", stream)
        with self._lock:
            self._put(queue, "a wait", lambda: self._reach(mark))
            self._order.follow(stream, mark.stamp)

    def await_event(self, event: int) -> None:
        self._begin("await_event")
        mark = self._event(event)
        self._reach(mark)
        with self._lock:
            self._order.reached(mark.stamp)

    def _reach(self, mark: Event) -> Touched:
        """Do as much as is before a mark and no more, so that what nobody waits for is not there."""
        while not mark.done:
            self._step(mark.queue)
        return NOTHING

    def end_event(self, event: int) -> None:
        self._begin("end_event")
        self._event(event)
        del self._events[event]

    def _event(self, event: int) -> Event:
        if event not in self._events:
            raise Misuse(f"there is no event {event}")
        return self._events[event]

    # Memory

    def allocate(self, nbytes: int, stream: int) -> int:
        queue = self._queue("allocate", stream)
        if nbytes <= 0:
            raise Misuse(f"{nbytes} bytes are allocated")
        if self._used(queue.gpu) + nbytes > self.gpus[queue.gpu].nbytes:
            raise OutOfMemoryError(f"the GPU has no memory left to allocate {nbytes} bytes: free some, or ask for less")
        self.spare[queue.gpu] = max(0, self.spare[queue.gpu] - nbytes)
        buffer = ctypes.create_string_buffer(nbytes + ALIGNMENT)
        address = ctypes.addressof(buffer)
        address += -address % ALIGNMENT
        ctypes.memset(address, RUBBISH, nbytes)
        self._blocks[address] = Block(nbytes, queue.gpu, buffer)
        bisect.insort(self._starts, address)
        self.most[queue.gpu] = max(self.most[queue.gpu], self._used(queue.gpu))
        memory = self._memories[queue.gpu]
        self._put(queue, "an allocation", lambda: ((), (memory.add(address, nbytes),)))
        return address

    def free(self, address: int, stream: int) -> None:
        queue, block = self._queue("free", stream), self._blocks.get(address)
        if block is None or not block.alive or block.gpu != queue.gpu:
            raise Misuse(f"no memory of this GPU begins at {address:#x}, or it was freed")
        block.alive = False
        self.spare[queue.gpu] += block.nbytes
        memory = self._memories[queue.gpu]

        def forget() -> Touched:
            memory.remove(address)
            ctypes.memset(address, RUBBISH, block.nbytes)
            return (), (address,)

        self._put(queue, "freeing memory", forget)

    def allocate_host(self, nbytes: int) -> int:
        self._begin("allocate_host")
        if sum(map(len, self._pinned.values())) + nbytes > self.pinned:
            raise OutOfMemoryError(NO_PINNED.format(nbytes))
        buffer = ctypes.create_string_buffer(nbytes)
        self._pinned[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def free_host(self, address: int) -> None:
        self._begin("free_host")
        if address not in self._pinned:
            raise Misuse(f"{address:#x} is no memory that a GPU reads by itself")
        if self._copied[address]:
            raise Misuse("such memory is freed while a copy from or to it is under way")
        del self._pinned[address]

    def copy_in(self, target: int, source: int, nbytes: int, stream: int) -> None:
        queue = self._queue("copy_in", stream)
        self._check(queue, target, nbytes)
        held = self._pinned_at(source, nbytes)
        if not held:
            raise Misuse("a copy reads memory that the system may move: it is not from allocate_host")
        self.sent += nbytes
        self._copied[held] += 1
        before = ctypes.string_at(source, nbytes)

        def move() -> Touched:
            self._copied[held] -= 1
            if ctypes.string_at(source, nbytes) != before:
                raise Misuse("memory changed before a copy from it was done")
            ctypes.memmove(target, source, nbytes)
            return (), (target,)

        self._put(queue, "a copy from here", move)

    def copy_out(self, target: int, source: int, nbytes: int, stream: int) -> None:
        queue = self._queue("copy_out", stream)
        self._check(queue, source, nbytes)
        held = self._pinned_at(target, nbytes)
        self._copied[held] += 1

        def move() -> Touched:
            ctypes.memmove(target, source, nbytes)
            self._copied[held] -= 1
            return (source,), ()

        self._put(queue, "a copy to here", move)

    def _pinned_at(self, address: int, nbytes: int) -> int:
        """Return where the memory begins, from allocate_host, that these bytes are of; 0 where they are of none."""
        return next((at for at, b in self._pinned.items() if at <= address and address + nbytes <= at + len(b)), 0)

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        queue = self._queue("copy", stream)
        self._check(queue, target, nbytes)
        self._check(queue, source, nbytes)
        if source < target + nbytes and target < source + nbytes:
            raise Misuse("a copy within the GPU overlaps")
        self._put(queue, "a copy", lambda: (((source,), (target,)), ctypes.memmove(target, source, nbytes))[0])

    def copy_all(self, pieces: Sequence[tuple[int, int, int]], stream: int) -> None:
        queue = self._queue("copy_all", stream)
        if not pieces or not all(nbytes for _, _, nbytes in pieces):
            raise Misuse("no pieces are copied, or one of no bytes, of which NVIDIA says nothing")
        for target, source, nbytes in pieces:
            self._check(queue, target, nbytes)
            self._check(queue, source, nbytes)
        written = sorted((target, target + nbytes) for target, _, nbytes in pieces)
        read = [(source, source + nbytes) for _, source, nbytes in pieces]
        ends = [end for _, end in written[:-1]]
        if any(end > begin for end, (begin, _) in zip(ends, written[1:], strict=True)):
            raise Misuse("pieces that are copied together are written over each other")
        if any(low < end and begin < high for low, high in read for begin, end in written):
            raise Misuse("a piece is copied from where another one is written")

        def move() -> Touched:
            for target, source, nbytes in pieces:
                ctypes.memmove(target, source, nbytes)
            return [source for _, source, _ in pieces], [target for target, _, _ in pieces]

        self._put(queue, "a copy of pieces", move)

    def fill(self, address: int, value: int, nbytes: int, stream: int) -> None:
        queue = self._queue("fill", stream)
        self._check(queue, address, nbytes)
        self._put(queue, "a fill", lambda: (((), (address,)), ctypes.memset(address, value, nbytes))[0])

    def _check(self, queue: Queue, address: int, nbytes: int) -> None:
        """Raise unless that is memory of the queue's GPU, as far as work goes that was asked for by now."""
        for start, block in self._blocks.items():
            if start <= address and address + nbytes <= start + block.nbytes and block.alive and block.gpu == queue.gpu:
                return
        raise Misuse(f"{nbytes} bytes at {address:#x} are no memory of this GPU, or were freed")

    # Kernels

    def load(self, code: bytes, entry: str, shared: int) -> int:
        gpu, handle = self._begin("load"), next(self._handles)
        if shared > self.gpus[gpu].shared:
            raise DeviceError(f"a kernel takes {shared} bytes of shared memory; the GPU has {self.gpus[gpu].shared}")
        module = _module(code)
        if entry not in module.entries:
            raise Misuse(f"there is no kernel {entry}")
        self._kernels[handle] = Kernel(module, entry, shared)
        return handle

    def launch(self, launch: Launch, stream: int) -> None:
        queue = self._queue("launch", stream)
        self._put(queue, *self._launched(launch, queue.gpu))

    def graph(self, launches: Sequence[Launch]) -> int:
        gpu, handle = self._begin("graph"), next(self._handles)
        self._graphs[handle] = [self._launched(launch, gpu) for launch in launches]
        return handle

    def _launched(self, launch: Launch, gpu: int) -> tuple[str, Work]:
        """Return what a launch is called, and what it does."""
        kernel, grid, block, shared, letters, values = launch
        loaded, memory = self._kernels.get(kernel), self._memories[gpu]
        if loaded is None or shared > loaded.shared:
            raise Misuse(f"there is no kernel {kernel}, or it was loaded for less than {shared} bytes of shared memory")
        arguments = struct.unpack(f"={letters}", values)

        def run() -> Touched:
            loaded.module.launch(loaded.entry, grid, block, arguments, shared, memory=memory)
            return memory.read, memory.written

        return f"the kernel {loaded.entry}", run

    def run_graph(self, graph: int, stream: int) -> None:
        queue = self._queue("run_graph", stream)
        if graph not in self._graphs:
            raise Misuse(f"there is no graph {graph}")
        for what, work in self._graphs[graph]:
            self._put(queue, what, work)

    def end_graph(self, graph: int) -> None:
        self._begin("end_graph")
        if self._graphs.pop(graph, None) is None:
            raise Misuse(f"there is no graph {graph}")

    # What is left

    def left(self) -> dict[str, int]:
        """Return how much of everything was not given back, by name; nothing where all was."""
        found = {
            "blocks of memory": sum(block.alive for block in self._blocks.values()),
            "blocks that a GPU reads": len(self._pinned),
            "streams": len(self._queues),
            "events": len(self._events),
            "graphs": len(self._graphs),
        }
        return {name: count for name, count in found.items() if count}

    def _begin(self, call: str) -> int:
        """Note a call, and return the GPU of the calling thread."""
        self._say(call)
        gpu: int | None = getattr(self._entered, "gpu", None)
        if gpu is None:
            raise Misuse(f"{call} by a thread that has entered no GPU")
        return gpu

    def _say(self, call: str) -> None:
        if self.lost:
            raise DeviceError(self.lost)
        self.calls.append(call)

    def _queue(self, call: str, stream: int) -> Queue:
        gpu, queue = self._begin(call), self._queues.get(stream)
        if queue is None:
            raise Misuse(f"{call}: there is no stream {stream}")
        if queue.gpu != gpu:
            raise Misuse(f"{call}: stream {stream} is of cuda:{queue.gpu}, and the thread has entered cuda:{gpu}")
        return queue

    def _put(self, queue: Queue, what: str, work: Work) -> Stamp:
        with self._lock:
            stamp = self._order.ask(queue.handle, what)
            queue.work.append((stamp, work))
        return stamp

    def _run(self, queue: Queue) -> None:
        while queue.work:
            self._step(queue)

    def _step(self, queue: Queue) -> None:
        with self._lock:
            if not queue.work:
                return
            stamp, work = queue.work.pop(0)
            reads, writes = (set(map(self._start, touched)) for touched in work())
            if wrong := self._order.touch(stamp, reads, writes):
                raise Misuse(wrong)

    def _start(self, address: int) -> int:
        """Return where the block begins that has this address."""
        place = bisect.bisect_right(self._starts, address) - 1
        return self._starts[place]
