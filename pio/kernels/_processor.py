"""The processor that kernels are compiled for: in the words of Linux, elsewhere in LLVM's.

A process that finds all kernels on disk asks LLVM nothing: LLVM takes fifty megabytes to be there. What is compiled for
a processor runs on all that Linux describes in the same words, which are more than LLVM knows. Of ARM processors LLVM
does not find what is newer than 2016 unless it knows their name; the system is asked for that (`System.
processor_features`), which also says it of an emulated one. It also has to allow the registers of AMX.
"""

# llvmlite comes without type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import re
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

from pio.forks import llvm
from pio.kernels import _settings
from pio.system import HERE

LANES: Final = 16  # of a vector, on every processor
CPUINFO: Final = "/proc/cpuinfo"
# Of the lines of that file those that decide about code, what the processor can do last. Others change between looks.
_X86: Final = ("vendor_id", "cpu family", "model", "flags")
_ARM: Final = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features")
# An emulated process finds the lines of its host's processor there, which are none of its own.
_SAID: Final = {"x86_64": _X86, "aarch64": _ARM}.get(HERE.machine, ())
# Words for what the system does with a processor, which change with the system and decide about no code.
_SYSTEM: Final = re.compile(
    r".*(tsc|ibrs|ibpb|stibp|ssbd|perf|apic|cpuid|retpoline|srso|cqm|vmm?call).*|arch_.*|md_clear|flush_l1d|rethunk|unret"
    r"|pti|hypervisor|nopl|rep_good|xtopology|rapl|ept.*|vpid|npt|tpr_shadow|flexpriority|c[ad][tp]_l\d.*|mba|ida|arat|epb"
    r"|cpb|hwp.*|hw_pstate|dtherm|pln|pts|overflow_recov|succor|ospke|split_lock_detect|bus_lock_detect"
)
_LINUX: Final = {  # where names differ
    "amx-int8": "amx_int8",
    "amx-tile": "amx_tile",
    "avx512bf16": "avx512_bf16",
    "avx512vnni": "avx512_vnni",
}
_ASKED: Final = ("bf16", "dotprod", "fullfp16", "i8mm")  # of an ARM processor: the system knows


@cache
def cpu_features() -> dict[str, bool]:
    """Return what the processor can do, by LLVM's names; loads LLVM."""
    return {**llvm().get_host_cpu_features(), **dict.fromkeys(HERE.processor_features(), True)}


@cache
def unlisted_features() -> tuple[str, ...]:
    """Return what kernels may use and LLVM does not find; loads LLVM."""
    listed = llvm().get_host_cpu_features()
    return tuple(f for f in sorted(HERE.processor_features()) if compiles_for(f) and not listed.get(f))


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
    """Return what decides for which processor code is made: a system, the words for a processor, what it may use."""
    chosen = str(_settings.CPU_NAME), str(_settings.CPU_FEATURES), *(["tiles"] if AMX else [])
    if None not in (_settings.CPU_NAME, _settings.CPU_FEATURES):
        return EXTENSION_SUFFIXES[0], *chosen  # for another processor than this one, it may be
    known, said = sorted(HERE.processor_features()), described()
    if said is not None:
        return EXTENSION_SUFFIXES[0], *chosen, *said[0], *known  # such a suffix names the system, its C library, a kind
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
    if HERE.machine == "aarch64" and feature in _ASKED:
        return feature in HERE.processor_features()
    said = described()
    return cpu_features().get(feature, False) if said is None else _LINUX.get(feature, feature) in said[1]


def _dot() -> str:
    """How integer tiles multiply."""
    if compiles_for("avx512vnni") and compiles_for("avx512f"):
        return "vnni"
    if compiles_for("avx2"):
        return "avx2"
    if compiles_for("dotprod"):
        return "i8mm" if compiles_for("i8mm") else "sdot"
    return "neon" if HERE.machine == "aarch64" else "portable"


def _amx() -> bool:
    """Whether integer tiles of many rows are those of AMX: the processor has it, and the system allows it."""
    has = all(map(compiles_for, ("amx-tile", "amx-int8", "avx512f", "avx512vnni")))
    return has and HERE.allow_matrix_tiles()


def _pairs() -> str:
    """How tiles of bfloat16 multiply."""
    if compiles_for("avx512bf16") and compiles_for("avx512f"):
        return "avx512"
    return "bfdot" if compiles_for("bf16") else "portable"


WIDE: Final = compiles_for("avx512f")  # thirty-two registers of sixteen lanes
DOT: Final = _dot()
AMX: Final = _amx()
PAIRS: Final = _pairs()
