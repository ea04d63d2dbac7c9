"""A GPU: its context, which a thread enters before it asks the driver, and what it is."""

from __future__ import annotations

import os
from functools import cache
from typing import Final

from pio.cuda.driver import Driver
from pio.errors import DeviceError
from pio.system import HERE

OLDEST: Final = (8, 0)  # the capability from which on kernels are compiled
OLDEST_CUDA: Final = (13, 0)
FORKED: Final = (
    "this process was forked from one that used the GPU, which CUDA does not allow: start processes by "
    "multiprocessing's method 'spawn', fork before the first use of a GPU, or use device='cpu'"
)

_process: Final = os.getpid()
_used: Final[list[Gpu]] = []


class Gpu:
    """One GPU of this process.

    Attributes:
        driver: Who is asked.
        ordinal: Which one it is.
        facts: What it is.
    """

    def __init__(self, driver: Driver, ordinal: int) -> None:
        """Begin to use a GPU.

        Raises:
            DeviceError: There is no such GPU, or it is too old.
        """
        count = driver.count()
        if not 0 <= ordinal < count:
            have = "one GPU, cuda:0" if count == 1 else f"{count} GPUs, from cuda:0 on" if count else "no GPU"
            raise DeviceError(f"there is no device cuda:{ordinal}: this machine has {have}; name one that there is")
        self.driver, self.ordinal, self.facts = driver, ordinal, driver.facts(ordinal)
        if self.facts.capability < OLDEST:
            have, need = (".".join(map(str, pair)) for pair in (self.facts.capability, OLDEST))
            raise DeviceError(
                f"cuda:{ordinal} is a {self.facts.name} of compute capability {have}; pio needs {need} or newer: use "
                "device='cpu'"
            )
        self._context = driver.open(ordinal)
        self._gone = ""
        _used.append(self)

    @property
    def architecture(self) -> str:
        """What code is made for, such as ``sm_90a``: from 9.0 on code that uses all of this kind of GPU."""
        major, minor = self.facts.capability
        return f"{self.driver.code}_{major}{minor}{'a' if major >= 9 else ''}"

    def enter(self) -> Driver:
        """Make this GPU the calling thread's, and return who is asked about it.

        It is made so each time: other GPUs of pio's, and other libraries, have the thread enter theirs.

        Raises:
            DeviceError: This is a child of the process that used it.
        """
        if self._gone:
            raise DeviceError(self._gone)
        self.driver.enter(self._context)
        return self.driver

    def lose(self, why: str) -> None:
        """Have every thread told that it cannot be used any more, and why."""
        self._gone = why


def _after_fork() -> None:
    """In a child, have GPUs that its parent used refuse all: nothing of CUDA works there."""
    if os.getpid() != _process:
        for each in _used:
            each.lose(FORKED)


HERE.at_fork(lambda: None, _after_fork)


@cache
def driver() -> Driver:
    """Return the driver of this machine.

    Raises:
        DeviceError: There is none, it is too old, or ``pio[cuda]`` is not installed.
    """
    from pio.cuda.bindings import Bindings

    return checked(Bindings())


def checked(driver: Driver) -> Driver:
    """Return a driver that is new enough.

    Raises:
        DeviceError: It is too old.
    """
    found = driver.version()
    if found < OLDEST_CUDA:
        have, need = (".".join(map(str, pair)) for pair in (found, OLDEST_CUDA))
        raise DeviceError(
            f"NVIDIA's driver on this machine serves CUDA {have}; pio needs {need}: install release 580 of the driver "
            "or newer, or use device='cpu'"
        )
    return driver


@cache
def gpu(ordinal: int) -> Gpu:
    """Return a GPU of this machine; errors as ``Gpu`` and ``driver`` raise them."""
    if _used and os.getpid() != _process:
        raise DeviceError(FORKED)
    return Gpu(driver(), ordinal)


def first_usable() -> int:
    """Return the number of the first GPU that can be used; errors as above where there is none."""
    for ordinal in range(driver().count()):
        if driver().facts(ordinal).capability >= OLDEST:
            return ordinal
    return gpu(0).ordinal  # says what it needs


def describe() -> list[str]:
    """Return a line for each GPU of this machine that can be used, in the order of their numbers; errors as above."""
    found = [driver().facts(ordinal) for ordinal in range(driver().count())]
    usable = [facts for facts in found if facts.capability >= OLDEST]
    if found and not usable:
        gpu(0)  # says what it needs
    return [
        f"cuda:{i} {facts.name}, compute capability {facts.capability[0]}.{facts.capability[1]}, {facts.nbytes >> 20} "
        f"MiB{'' if facts.capability >= OLDEST else ', too old'}"
        for i, facts in enumerate(found)
    ]
