"""How long the tests of this group run, and what they look at: a few seconds each, or in full with ``--long``."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """How often each test does what it does.

    Attributes:
        long: Whether bounds of time are asserted too; short runs share their machine with other tests.
        cancels: Requests that are cancelled at a random moment.
        requests: Requests of all kinds, mixed.
        loads: Models loaded and given back.
        signals: Child processes that get a signal at a random moment.
        kills: Programs that quantize and are killed at a random moment.
        rounds: Batches that do not fit into the cache.
        leaves: Callers that go away, in each way.
    """

    long: bool
    cancels: int
    requests: int
    loads: int
    signals: int
    kills: int
    rounds: int
    leaves: int


SHORT = Sizes(long=False, cancels=40, requests=160, loads=6, signals=5, kills=6, rounds=1, leaves=3)
LONG = Sizes(long=True, cancels=1000, requests=2000, loads=50, signals=200, kills=100, rounds=20, leaves=200)


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> Sizes:
    return LONG if pytestconfig.getoption("--long") else SHORT


@dataclass(frozen=True)
class Holdings:
    """What a process holds of the system."""

    anonymous: int
    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> Holdings:
        gc.collect()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
        kibibytes = int(status["RssAnon"].split()[0])
        return cls(kibibytes << 10, threading.active_count(), len(os.listdir("/proc/self/fd")))

    def assert_flat_since(self, before: Holdings, growth: int) -> None:
        """Fail where more is held than before; memory may have grown by so many bytes."""
        assert (self.threads, self.descriptors) == (before.threads, before.descriptors)
        assert self.anonymous - before.anonymous < growth, f"{(self.anonymous - before.anonymous) / MIB:.1f} MiB more"


@pytest.fixture
def holdings() -> type[Holdings]:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux: reads /proc/self/status")
    return Holdings
