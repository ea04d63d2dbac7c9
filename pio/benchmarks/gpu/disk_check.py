"""What leaves a GPU for disk, of which no step is to notice anything."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from typing import Final

from pio.benchmarks.gpu.check import TIMES, Check, Finding
from pio.tensor import Tensor

PIECE: Final = 64 << 10  # bytes that a block has in a layer
COUNT: Final = 128  # of a segment
ASKED_US: Final = 1000.0  # of Python, for a segment


def disk(check: Check) -> Iterator[Finding]:
    """Gather pieces, write over what they came from at once, and compare what comes here."""
    stream = check.device.stream
    assert stream is not None
    numbers = array("i", range(2 * PIECE * COUNT // 4))
    held, there = memoryview(numbers).cast("B"), Tensor.from_buffer(numbers).to(check.device)
    fresh = there.clone()
    back = stream.write_back(PIECE * COUNT)
    begins = range(PIECE * (2 * COUNT - 1), 0, -2 * PIECE)  # every other one, from the end
    pieces = [(i * PIECE, there.address + begin, PIECE) for i, begin in enumerate(begins)]
    expected = b"".join(held[begin : begin + PIECE] for begin in begins)
    right, asked, taken = 0, list[float](), list[float]()
    for _ in range(TIMES):
        there.copy_(fresh)
        stream.wait()
        began = time.perf_counter()
        back.gather(pieces)
        back.bring(PIECE * COUNT)
        asked.append(time.perf_counter() - began)
        stream.fill(there.address, 0, there.nbytes)
        back.wait()
        taken.append(time.perf_counter() - began)
        right += bytes(back.view) == expected
    yield Finding.equal("segments as they were before they were written over", right, TIMES)
    yield check.short("segment for disk, until Python goes on", 1e6 * min(asked), "µs", ASKED_US)
    yield Finding("segment for disk, until it is here", PIECE * COUNT / min(taken) / 1e9, "GB/s")
