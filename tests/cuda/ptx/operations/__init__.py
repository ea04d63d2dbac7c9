"""What each instruction does; importing this registers all."""

from . import (
    arithmetic,
    async_copy,
    atomics,
    bits,
    comparisons,
    control,
    conversions,
    functions,
    loads,
    matrices,
    moves,
    tensor_core,
    warps,
)

__all__ = [
    "arithmetic",
    "async_copy",
    "atomics",
    "bits",
    "comparisons",
    "control",
    "conversions",
    "functions",
    "loads",
    "matrices",
    "moves",
    "tensor_core",
    "warps",
]
