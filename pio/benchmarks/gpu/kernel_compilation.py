"""Compiles what a check needs before anything is timed: one kernel at a time would take most of its minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from pio.benchmarks.gpu.check import Check, Finding
from pio.benchmarks.gpu.check_shapes import SMALL
from pio.benchmarks.gpu.kernel_checks import subjects
from pio.benchmarks.gpu.numbers import Numbers
from pio.device import Device
from pio.ops import compilation, roofline
from pio.tensor import Tensor


def compiled(check: Check) -> Iterator[Finding]:
    """List the kernels of everything that is computed, and have other processes compile those that are not kept.

    Kernels are those of element types, whatever sizes there are, so small ones are enough. None of them runs here.
    """
    shapes = replace(SMALL, forms=check.shapes.forms, caches=check.shapes.caches)
    began = time.perf_counter()
    try:
        with compilation.listing() as listed:
            for subject in subjects(shapes):
                for device in (check.device, Device("cpu")):
                    subject.make(Numbers(device)).once()
            roofline.read_all(Tensor.zeros((4,), device=check.device))
            roofline.pair_all(1, device=check.device)
            roofline.dot_all(1, device=check.device)
    finally:
        Numbers.forget()  # numbers that no kernel has converted
    yield Finding("kernels that were not compiled", len({kernel.source.name for kernel in listed}))
    compilation.compile_missing(listed)
    yield Finding("time to compile them", time.perf_counter() - began, "s")
