"""The processor that kernels are compiled for, as LLVM names it and its features."""

# llvmlite comes without type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from functools import cache
from typing import Final

from llvmlite import binding

from pio.kernels import _settings

LANES: Final = 16  # of a vector, on every processor


@cache
def cpu_features() -> dict[str, bool]:
    """Return what the processor can do, by LLVM's names."""
    return dict(binding.get_host_cpu_features())


@cache
def target() -> tuple[str, str, str]:
    """Return what decides for which processor code is made: triple, name and features."""
    named = binding.get_host_cpu_name() if _settings.CPU_NAME is None else _settings.CPU_NAME
    given = _settings.CPU_FEATURES
    features = given if given is not None else ",".join(f for f, has in sorted(cpu_features().items()) if has)
    return str(binding.get_process_triple()), str(named), str(features)


def compiles_for(feature: str) -> bool:
    """Return whether kernels may use a feature of the processor, as NUMBA_CPU_NAME and NUMBA_CPU_FEATURES leave it."""
    given = _settings.CPU_FEATURES
    if given is not None:
        return f"+{feature}" in str(given).split(",")
    named = _settings.CPU_NAME not in (None, "", "host")
    return not named and cpu_features().get(feature, False)


WIDE: Final = compiles_for("avx512f")  # thirty-two registers of sixteen lanes
PAIR_DOTS: Final = compiles_for("avx512bf16") and compiles_for("avx512f")
