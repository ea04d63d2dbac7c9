"""GPUs that a test has: a fake driver in the place of this machine's, and all of pio's state about GPUs fresh."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver

from pio import device
from pio.cuda import gpu as gpus
from pio.cuda import stream as streams


@contextmanager
def having(driver: FakeDriver) -> Generator[FakeDriver]:
    """Let a driver be this machine's meanwhile; whatever pio has taken of it must have been given back then."""
    before = gpus.driver
    gpus.driver = lambda: gpus.checked(driver)
    _forget()
    gc.freeze()  # what there is by now, compilers above all, need not be looked through behind each test
    try:
        yield driver
        gc.collect()
        if not driver.lost:
            for name, made in list(device._made.items()):
                if name[0].startswith("cuda") and made.stream is not None:
                    made.stream.close()
            assert driver.left() == {}
    finally:
        gc.unfreeze()
        gpus.driver = before
        _forget()


def _forget() -> None:
    for key in [key for key in device._made if key[0].startswith("cuda")]:
        del device._made[key]
    gpus.gpu.cache_clear()
    streams._stream.cache_clear()
