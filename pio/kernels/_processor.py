"""The processor that kernels are compiled for: in the words of Linux, elsewhere in LLVM's.

A process that finds all kernels on disk asks LLVM nothing: LLVM takes fifty megabytes to be there. What is compiled for
a processor runs on all that Linux describes in the same words, which are more than LLVM knows.
"""

# llvmlite comes without type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import platform
import re
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

from pio.forks import llvm
from pio.kernels import _settings

LANES: Final = 16  # of a vector, on every processor
CPUINFO: Final = "/proc/cpuinfo"
# Of the lines of that file those that decide about code, what the processor can do last. Others change between looks.
_X86: Final = ("vendor_id", "cpu family", "model", "flags")
_ARM: Final = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features")
# An emulated process finds the lines of its host's processor there, which are none of its own.
_SAID: Final = {"x86_64": _X86, "AMD64": _X86, "aarch64": _ARM, "arm64": _ARM}.get(platform.machine(), ())
# Words for what the system does with a processor, which change with the system and decide about no code.
_SYSTEM: Final = re.compile(
    r".*(tsc|ibrs|ibpb|stibp|ssbd|perf|apic|cpuid|retpoline|srso|cqm|vmm?call).*|arch_.*|md_clear|flush_l1d|rethunk|unret"
    r"|pti|hypervisor|nopl|rep_good|xtopology|rapl|ept.*|vpid|npt|tpr_shadow|flexpriority|c[ad][tp]_l\d.*|mba|ida|arat|epb"
    r"|cpb|hwp.*|hw_pstate|dtherm|pln|pts|overflow_recov|succor|ospke|split_lock_detect|bus_lock_detect"
)
_LINUX: Final = {"avx512bf16": "avx512_bf16", "avx512vnni": "avx512_vnni", "dotprod": "asimddp"}  # where names differ


@cache
def cpu_features() -> dict[str, bool]:
    """Return what the processor can do, by LLVM's names; loads LLVM."""
    return dict(llvm().get_host_cpu_features())


@cache
def described(path: str = CPUINFO) -> tuple[tuple[str, ...], frozenset[str]] | None:
    """Return how Linux describes the processor, and the names of what it can do; None where nothing does that.

    Args:
        path: The file that says it.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    fields = [[part.strip() for part in line.partition(":")[::2]] for line in text.splitlines()]
    said = dict[str, None]()  # each once: most cores are alike
    can = set[str]()
    for name, value in fields:
        if name in _SAID[:-1]:
            said[f"{name}: {value}"] = None
        elif name in _SAID[-1:]:
            can |= {word for word in value.split() if not _SYSTEM.fullmatch(word)}
    return ((*said, *sorted(can)), frozenset(can)) if can else None


@cache
def target() -> tuple[str, ...]:
    """Return what decides for which processor code is made: a system, and the words for a processor."""
    chosen = str(_settings.CPU_NAME), str(_settings.CPU_FEATURES)
    if None not in (_settings.CPU_NAME, _settings.CPU_FEATURES):
        return EXTENSION_SUFFIXES[0], *chosen  # for another processor than this one, it may be
    said = described()
    if said is not None:
        return EXTENSION_SUFFIXES[0], *chosen, *said[0]  # such a suffix names the system, its C library, and a kind
    features = ",".join(f for f, has in sorted(cpu_features().items()) if has)
    return str(llvm().get_process_triple()), *chosen, str(llvm().get_host_cpu_name()), features


def compiles_for(feature: str) -> bool:
    """Return whether kernels may use a feature of the processor, as NUMBA_CPU_NAME and NUMBA_CPU_FEATURES leave it.

    Args:
        feature: LLVM's name for it.
    """
    given = _settings.CPU_FEATURES
    if given is not None:
        return f"+{feature}" in str(given).split(",")
    if _settings.CPU_NAME not in (None, "", "host"):
        return False
    said = described()
    return cpu_features().get(feature, False) if said is None else _LINUX.get(feature, feature) in said[1]


WIDE: Final = compiles_for("avx512f")  # thirty-two registers of sixteen lanes
PAIR_DOTS: Final = compiles_for("avx512bf16") and compiles_for("avx512f")
