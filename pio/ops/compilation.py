"""Compiled kernels: where they are kept, when they are made, and on what they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from pio.device import Device
from pio.kernels import _compilers, _image, _missing, _processor, _settings, _watch, jobs
from pio.kernels.jobs import Serial
from pio.kernels.jobs import is_listing as is_listing
from pio.kernels.jobs import listing as listing
from pio.machine import available_memory, cpu_count
from pio.system import HERE

# What a request runs besides the parallel kernels: the pool that these run on, and looking for ids that there are not.
SERIAL = (*jobs.POOL, Serial.named("pio.kernels.gather", "first_outside"))
# Kernels that take seconds to compile, those that take longest first: they begin before all others, so that no process
# is left with one of them when there is nothing to do for the rest.
LONGEST = (
    *("attention", "latent_attention", "gated_delta", "sample", "experts_linear", "linears", "head_linear"),
    *("many_experts", "many_linears", "few_experts", "few_linears"),  # what GPUs have in place of two of them
    *("quantizing_experts", "quantizing_linears"),
)
COMPILER_BYTES = 512 << 20  # free memory for each process that compiles


def enabled() -> bool:
    """Return whether kernels are compiled at all; without the compiler they run as slow Python."""
    return _settings.JIT


def checked() -> bool:
    """Return whether kernels check every index, as NUMBA_BOUNDSCHECK asks for."""
    return _settings.BOUNDSCHECK


def compile_missing(listed: Iterable[jobs.Job | jobs.Absent], check: Callable[[], object] = lambda: None) -> None:
    """Compile what the cache folder lacks of these and of ``SERIAL``, in other processes, as many as fit the machine.

    Where no process can be started nothing is done: kernels are compiled when they are first called. What ``check``,
    which is called now and then, raises ends the processes.
    """
    free = available_memory()
    room = cpu_count() if free is None else free // COMPILER_BYTES
    rank = {name: i for i, name in enumerate(LONGEST)}
    ordered = sorted([*listed, *SERIAL], key=lambda kernel: rank.get(kernel.source.name.name, len(rank)))
    _compilers.compile_missing(ordered, max(1, min(cpu_count(), room)), check)


def cache_folder() -> Path | None:
    """Return the folder of compiled kernels of this version, or None where none can be used."""
    return _image.cache_folder()


def cache_size() -> tuple[int, int]:
    """Return how many compiled kernels the folder holds, and the bytes of all of it."""
    folder = cache_folder()
    if folder is None:
        return 0, 0
    files = [entry for entry in os.scandir(folder) if entry.is_file()]
    return sum(entry.name.endswith(_image.SUFFIX) for entry in files), sum(entry.stat().st_size for entry in files)


def code_stamp(package: str) -> str | None:
    """Return a digest of all that decides what a package computes beside its inputs; None where that is in no files.

    It covers the sources of the package, with their paths, and those of all kernels, Numba's version and its switches;
    not the processor, for kernels compute the same bits on all of them but for what ``multiplies_bfloat16`` says.
    """
    try:
        own = _image.package_stamp(package)
        return None if own is None else f"{_image.source_stamp()} {own}"
    except FileNotFoundError:
        return None


def code_of(device: Device) -> str:
    """Return a digest of what kernels become on a device, where that decides bits: nothing on the CPU, see above.

    GPUs of one architecture run the same machine code, in which sums have the same order on any number of
    multiprocessors; it is made by packages whose versions count.
    """
    if device.stream is None:
        return device.kind
    from pio.kernels.cuda import _kept

    return f"{device.kind} {device.stream.architecture} {_kept.source_stamp()}"


def noting_unmade(names: set[str]) -> AbstractContextManager[set[str]]:
    """Add names of kernels that could not be made for a GPU, in whose place the CPU's run, which have other last bits.

    Those are added that this thread wants while the context is open, also where somebody else has wanted them before.
    """
    return _missing.noting(names)


def helpers() -> tuple[int, bool]:
    """Return how many helper threads this process has by now, and whether idle ones sleep until they are woken."""
    return jobs.helpers(), HERE.wake is not None


def cpu_features() -> dict[str, bool]:
    """Return what the processor can do, by LLVM's names, as kernels are compiled for it."""
    return _processor.cpu_features()


def watch(
    started: Callable[[str], None],
    finished: Callable[[str], None] = lambda _: None,
    loaded: Callable[[str], None] = lambda _: None,
    left: Callable[[int], None] = lambda _: None,
) -> AbstractContextManager[None]:
    """Call back with names of kernels while the context is open; nothing is left of it afterwards.

    Args:
        started: Called as a kernel begins to be compiled; calls nest where one kernel calls another.
        finished: Called when it is compiled, or failed.
        loaded: Called for a kernel that the cache folder held.
        left: Called with how many of the kernels that other processes compile have not begun, all of them at first.
    """
    return _watch.watch_compilation(started, finished, loaded, left)
