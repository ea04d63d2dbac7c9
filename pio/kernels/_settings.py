"""Switches of the compiler, known without importing it: Numba reads them from the environment, and so do we.

Where nobody has set one of them, Numba's defaults hold. Where somebody has, or the program uses Numba itself and may
have changed one there, Numba is asked.
"""

# numba comes without type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final

# What decides the machine code, and Numba's defaults.
DEFAULTS: Final[dict[str, Any]] = {
    "DISABLE_JIT": 0,
    "BOUNDSCHECK": None,
    "OPT": 3,
    "LOOP_VECTORIZE": 1,
    "SLP_VECTORIZE": 0,
    "CPU_NAME": None,
    "CPU_FEATURES": None,
}
FILE: Final = ".numba_config.yaml"  # where Numba looks for settings too, in the current folder


def _settings() -> dict[str, Any]:
    """The settings of this process."""
    given = any(f"NUMBA_{name}" in os.environ for name in [*DEFAULTS, "ENABLE_AVX"]) or os.path.isfile(FILE)
    if not given and "numba.core.config" not in sys.modules:
        return DEFAULTS
    config = import_module("numba.core.config")
    return {name: getattr(config, name) for name in DEFAULTS}


_SETTINGS: Final = _settings()
JIT: Final = not _SETTINGS["DISABLE_JIT"]
BOUNDSCHECK: Final = bool(_SETTINGS["BOUNDSCHECK"])
PLAIN: Final = BOUNDSCHECK or not JIT  # kernels run where they are called, in this thread, and may raise
CPU_NAME: Final[str | None] = _SETTINGS["CPU_NAME"]
CPU_FEATURES: Final[str | None] = _SETTINGS["CPU_FEATURES"]
SWITCHES: Final = (
    int(_SETTINGS["BOUNDSCHECK"] or 0),
    int(_SETTINGS["OPT"]),
    bool(getattr(_SETTINGS["OPT"], "is_opt_max", False)),
    int(_SETTINGS["LOOP_VECTORIZE"]),
    int(_SETTINGS["SLP_VECTORIZE"]),
    os.environ.get("NUMBA_ENABLE_AVX", ""),
)


def cache_folder() -> str:
    """Return what folder is asked for by Numba's variable; empty where none is."""
    config = sys.modules.get("numba.core.config")
    return str(config.CACHE_DIR if config is not None else os.environ.get("NUMBA_CACHE_DIR", ""))
