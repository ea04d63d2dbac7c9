"""What ``pio doctor`` looks at."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pio import machine
from pio.cli.console import size
from pio.errors import DeviceError
from pio.system import HERE
from pio.threads import take_turns

State = Literal["ok", "advice", "missing"]

FEATURES = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512vnni",
    "avx512bf16",
    "avxvnni",
    "amx-int8",
    "amx-bf16",
    "neon",
    "dotprod",
    "fullfp16",
    "bf16",
    "i8mm",
    "sve",
)
PACKAGES = ("numba", "llvmlite", "tokenizers", "huggingface-hub", "pydantic", "jinja2", "rich", "typer")
SMALL = 1 << 30  # bytes of memory below which hardly any model fits


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        value: What was found.
        state: ok; advice, where something could be better; missing, where pio cannot run.
        remedy: What to do about it, empty where all is well.
    """

    name: str
    value: str
    state: State = "ok"
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; what cannot be looked at becomes a finding too."""
    looks: tuple[Callable[[], Finding], ...] = (
        _system,
        _python,
        _packages,
        _pictures,
        _processor,
        _features,
        _byte_products,
        _products,
        _gpus,
        _cores,
        _threading,
        _memory,
        _huge_pages,
        _cache,
        _models,
    )
    return [look() for look in looks]


def _system() -> Finding:
    return Finding("system", f"{HERE.name()}, {platform.machine()}")


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.implementation.name != "cpython":
        return Finding("Python", found, "missing", "Numba needs CPython")
    if not take_turns():
        return Finding(
            "Python",
            f"{found}, free-threaded",
            "missing",
            "pio relies on the global interpreter lock: take the usual build, or set PYTHON_GIL=1",
        )
    return Finding("Python", found)


def _packages() -> Finding:
    found: list[str] = []
    absent: list[str] = []
    for name in (*PACKAGES, *HERE.packages):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    if absent:
        return Finding("packages", ", ".join(found), "missing", f"pip install {' '.join(absent)}")
    return Finding("packages", ", ".join(found))


def _pictures() -> Finding:
    """What models that see need besides; who has none of them needs neither."""
    found: list[str] = []
    for name, use in (("pillow", "pictures"), ("av", "files of video")):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}: pip install {name} has {use} read")
    return Finding("pictures and videos", ", ".join(found))


def _processor() -> Finding:
    return Finding("processor", machine.cpu_name())


def _features() -> Finding:
    from pio.ops import compilation

    has = compilation.cpu_features()
    found = ", ".join(name for name in FEATURES if has.get(name)) or "none that kernels use"
    if HERE.machine == "x86_64" and not (has.get("avx2") and has.get("fma")):
        return Finding(
            "vector instructions",
            found,
            "advice",
            "without avx2 and fma kernels are several times slower; a virtual machine may hide them: pass the host's "
            "processor through",
        )
    if not compilation.enabled():
        return Finding("vector instructions", found, "advice", "NUMBA_DISABLE_JIT is set: unset it to compile kernels")
    return Finding("vector instructions", found)


def _byte_products() -> Finding:
    from pio.ops import compilation
    from pio.ops.quantized import product_instructions

    usual, *more = product_instructions()
    if more:
        return Finding("int8 products", f"by {usual}; of prompts and pictures by {' and '.join(more)}")
    if compilation.cpu_features().get("amx-int8"):
        return Finding(
            "int8 products",
            f"by {usual}; the system does not allow AMX, which the processor has",
            "advice",
            "quantized models read prompts faster with it: it takes Linux 5.16 or newer, and that no thread of the "
            "process handles signals on a small stack of its own",
        )
    return Finding("int8 products", f"by {usual}")


def _products() -> Finding:
    from pio.ops.bfloat16 import multiplies_bfloat16

    if multiplies_bfloat16():
        return Finding("bfloat16 products", "by an instruction: twice the float32 peak with --profile performance")
    return Finding("bfloat16 products", "as float32: --profile performance rounds inputs, and gains little by that")


def _gpus() -> Finding:
    from pio.device import gpus, usable_gpu

    try:
        found = f"{'; '.join(gpus())}; device=auto takes {usable_gpu()} for models that fit there"
    except DeviceError as error:
        return Finding("GPUs", f"none used: {error}")
    try:
        version("numba-cuda")
    except PackageNotFoundError:
        return Finding(
            "GPUs", found, "advice", 'their kernels have to be compiled: pip install "numba-cuda[cu13]>=0.30,<0.31"'
        )
    return Finding("GPUs", found)


def _cores() -> Finding:
    usable, there = machine.cpu_count(), os.cpu_count() or 1
    if usable < there:
        return Finding("cores", f"{usable} of {there} usable: {HERE.core_limits}")
    return Finding("cores", f"{usable} usable, as many threads by default")


def _threading() -> Finding:
    from pio.ops import compilation

    _, sleeps = compilation.helpers()
    idle = "sleep until they are woken" if sleeps else "look for work 5,000 times a second"
    return Finding("threading layer", f"pio's own, safe to enter from any thread; idle helpers {idle}")


def _memory() -> Finding:
    free = machine.available_memory()
    if free is None:
        return Finding("memory", "unknown: this system does not say how much is free")
    if free < SMALL:
        return Finding(
            "memory", f"{size(free)} free", "advice", "close other programs, or use --profile memory_efficient"
        )
    return Finding("memory", f"{size(free)} free")


def _huge_pages() -> Finding:
    found, remedy = HERE.huge_pages()
    return Finding("huge pages", found, "advice" if remedy else "ok", remedy)


def _cache() -> Finding:
    from pio.ops import compilation

    folder = compilation.cache_folder()
    if folder is None:
        return Finding(
            "compiled kernels",
            "no folder to keep them in",
            "advice",
            "every process compiles anew: set XDG_CACHE_HOME or NUMBA_CACHE_DIR to a folder that you own and can write",
        )
    files, nbytes = compilation.cache_size()
    found = f"{files} in {folder} ({size(nbytes)})"
    if not files:
        return Finding("compiled kernels", found, "advice", "pio warmup compiles them now")
    return Finding("compiled kernels", found)


def _models() -> Finding:
    from pio.loading.hub_cache import cache_folder

    folder = cache_folder()
    count = sum(1 for _ in folder.glob("models--*")) if folder.is_dir() else 0
    return Finding("Hugging Face cache", f"{folder}: {count} model{'' if count == 1 else 's'}")
