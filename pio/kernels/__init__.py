"""Numba kernels: addresses and sizes in, no checks; callers use `pio.ops`, which checks."""
