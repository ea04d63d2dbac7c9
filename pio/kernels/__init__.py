"""Kernels: addresses and sizes in, no checks; callers use `pio.ops`, which checks, and finds them by the launcher."""
