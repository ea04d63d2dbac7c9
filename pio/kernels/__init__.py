"""Numba kernels: addresses and sizes in, no checks; callers use `pio.ops`, which checks."""

from pio.shelter import import_whole

import_whole("numba")
