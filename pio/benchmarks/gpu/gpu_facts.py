"""What a GPU, its driver and the packages are, and what the GPU does at best."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from pio import ops
from pio.benchmarks.gpu.check import Check, Finding
from pio.device import gpus
from pio.machine import cpu_name
from pio.tensor import Tensor

PACKAGES = ("pio", "numba", "numba-cuda", "cuda-bindings", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink", "torch")
OPERATION_US = 20.0  # of an operation that a program calls, checks included


def facts(check: Check) -> Iterator[Finding]:
    """Say what there is."""
    for line in gpus():
        yield Finding("GPU", line)
    stream = check.device.stream
    assert stream is not None
    driver, found = stream.gpu.enter(), stream.gpu.facts
    yield Finding("CUDA that the driver serves", ".".join(map(str, driver.version())))
    yield Finding("multiprocessors", found.multiprocessors)
    yield Finding("shared memory of a block", found.shared / 1024, "KiB")
    free, total = driver.room()
    yield Finding("memory", total / 1e9, "GB")
    yield Finding("free memory", free / 1e9, "GB")
    yield Finding("processor", f"{cpu_name()}, Python {platform.python_version()}")
    for package in PACKAGES:
        yield Finding(package, _version(package))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def peaks(check: Check) -> Iterator[Finding]:
    """Measure what it reads and multiplies at best."""
    yield Finding("read bandwidth", check.bandwidth / 1e9, "GB/s")
    for name, speed in check.products.items():
        yield Finding(f"products of {name} by mma.sync", speed / 1e12, "Top/s")


def launches(check: Check) -> Iterator[Finding]:
    """Measure what an operation costs that does nearly nothing: called, and recorded in a graph."""
    x, y = Tensor.full((1, 32), 1.0, device=check.device), Tensor.full((1, 32), 2.0, device=check.device)
    out, count, stream = Tensor.zeros((1, 32), device=check.device), check.shapes.launches, check.device.stream
    assert stream is not None
    ops.add(x, y, out=out)
    stream.wait()
    began = time.perf_counter()
    for _ in range(count):
        ops.add(x, y, out=out)
    asked = (time.perf_counter() - began) / count
    stream.wait()
    done = (time.perf_counter() - began) / count
    yield check.short("operation, until Python goes on", 1e6 * asked, "µs", OPERATION_US)
    yield Finding("operation, until the GPU has done it", 1e6 * done, "µs")
    with ops.recording() as program:
        for _ in range(count):
            ops.add(x, y, out=out)
    program.run()
    stream.wait()
    yield Finding("kernel in a graph", 1e6 * check.seconds(program.run) / count, "µs")
    began = time.perf_counter()
    program.run()
    yield Finding("graph, until Python goes on", 1e6 * (time.perf_counter() - began), "µs")
    stream.wait()
    with ops.recording() as small:
        ops.add(x, y, out=out)
    small.run()
    stream.wait()
    began = time.perf_counter()
    small.run()
    stream.wait()
    yield Finding("graph of one kernel, and a wait for it", 1e6 * (time.perf_counter() - began), "µs")
