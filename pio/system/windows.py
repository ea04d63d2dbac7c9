"""Windows 10 and later, and Windows Server from 2016 on."""

from __future__ import annotations

import sys

assert sys.platform == "win32"

import ctypes
import errno
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pio.system.interface import Call
from pio.system.windows_files import WindowsFiles

if TYPE_CHECKING:
    import mmap

_FOREVER: Final = 0xFFFFFFFF
_CREATE_NEW_PROCESS_GROUP, _CREATE_NO_WINDOW = 0x200, 0x8000000
_FUNCTIONS: Final = {
    "WaitOnAddress": "api-ms-win-core-synch-l1-2-0",
    "WakeByAddressAll": "api-ms-win-core-synch-l1-2-0",
    "QueryInterruptTimePrecise": "api-ms-win-core-realtime-l1-1-1",
    "SwitchToThread": "kernel32",
}


class Windows(WindowsFiles):
    """Windows."""

    sleep = Call("WaitOnAddress", ("address", "place", 4, _FOREVER))
    wake = Call("WakeByAddressAll", ("address",))
    give_way = Call("SwitchToThread")
    clock = Call("QueryInterruptTimePrecise", ("result",))
    clock_units = (100,)
    # Ctrl-C in a console is for this process to handle, and a program without a console is to get none
    child_options: ClassVar[Mapping[str, Any]] = {"creationflags": _CREATE_NEW_PROCESS_GROUP | _CREATE_NO_WINDOW}
    ending_signals = (signal.SIGBREAK,)  # Ctrl-Break, and the console is being closed
    end_of_input = "Ctrl-Z and Enter"

    def symbols(self) -> dict[str, int]:
        """Return what the linker, which looks into libraries that are loaded, may not find there."""
        found = {name: _address(getattr(ctypes.WinDLL(library), name)) for name, library in _FUNCTIONS.items()}
        return {**found, "write": _address(ctypes.CDLL("ucrtbase")._write)}

    def private_memory(self, nbytes: int) -> mmap.mmap:
        """Return memory that the page file stands for."""
        import mmap

        return mmap.mmap(-1, nbytes)

    def cache_folder(self) -> Path:
        """Return the folder for what stays on this computer: Local in the profile's AppData as a rule."""
        import platformdirs

        return platformdirs.user_cache_path()

    def core_count(self) -> int:
        """Return the cores of the process's affinity."""
        import psutil

        return len(psutil.Process().cpu_affinity())

    def available_memory(self) -> int | None:
        """Return what is free or can be freed at once."""
        import psutil

        return int(psutil.virtual_memory().available)

    def processor_name(self) -> str:
        """Return its name as the registry has it."""
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
                return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        except OSError:
            return self.machine

    def seconds_since_start(self) -> float | None:
        """Return the time of day less that of the process's start."""
        import psutil

        return time.time() - psutil.Process().create_time()

    def peak_memory(self) -> int | None:
        """Return the largest working set."""
        import psutil

        return int(psutil.Process().memory_info().peak_wset)

    def is_closed_pipe(self, error: OSError) -> bool:
        """A pipe that nobody reads is invalid here, or broken."""
        return isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
