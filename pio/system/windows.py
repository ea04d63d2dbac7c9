"""Windows 10 and later, and Windows Server from 2016 on."""

from __future__ import annotations

import sys

assert sys.platform == "win32"

import ctypes
import errno
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pio.system import windows_machine
from pio.system.interface import Call, Machine, System
from pio.system.job_object import cpu_quota, free_memory
from pio.system.windows_files import WindowsFiles

if TYPE_CHECKING:
    import io
    import mmap

_WORKSTATION: Final = 1  # VER_NT_WORKSTATION
_NO_MEMORY: Final = (8, 14, 1450, 1455)  # no memory, of two kinds; no system resources; the limit of what is committed
_FOREVER: Final = 0xFFFFFFFF
_CREATE_NEW_PROCESS_GROUP, _CREATE_NO_WINDOW = 0x200, 0x8000000
_FUNCTIONS: Final = {
    "WaitOnAddress": "api-ms-win-core-synch-l1-2-0",
    "WakeByAddressAll": "api-ms-win-core-synch-l1-2-0",
    "QueryInterruptTimePrecise": "api-ms-win-core-realtime-l1-1-1",
    "SwitchToThread": "kernel32",
}

_PLAIN: Final = re.compile(r"[\w.:/\\-]+")  # no shell sees more in it
_BEFORE_QUOTE: Final = re.compile(r'(\\+)(?="|\Z)')


class Windows(WindowsFiles, System):
    """Windows."""

    # not of the machine: an interpreter for one kind may run on another
    machine: Machine = "x86_64" if "(AMD64)" in sys.version else "aarch64" if "(ARM64)" in sys.version else "other"
    sleep = Call("WaitOnAddress", ("address", "place", 4, _FOREVER))
    wake = Call("WakeByAddressAll", ("address",))
    give_way = Call("SwitchToThread")
    clock = Call("QueryInterruptTimePrecise", ("result",))
    clock_units = (100,)
    # Ctrl-C in a console is for this process to handle, and a program without a console is to get none
    child_options: ClassVar[Mapping[str, Any]] = {"creationflags": _CREATE_NEW_PROCESS_GROUP | _CREATE_NO_WINDOW}
    ending_signals = (signal.SIGBREAK,)  # Ctrl-Break, and the console is being closed
    end_of_input = "Ctrl-Z Enter"
    redirected_encoding = "utf-8"  # as other programs write it; Python before 3.15 takes the code page's
    thread_remedy = "enlarge the paging file"
    core_limits = "the process's affinity or job object gives no more"
    packages = ("platformdirs",)
    memory_remedy = "a larger paging file, a larger limit of its job object"

    def symbols(self) -> dict[str, int]:
        """Return what the linker, which looks into libraries that are loaded, may not find there."""
        found = {name: _address(getattr(ctypes.WinDLL(library), name)) for name, library in _FUNCTIONS.items()}
        return {**found, "write": _address(ctypes.CDLL("ucrtbase")._write)}

    def private_memory(self, nbytes: int) -> mmap.mmap:
        """Return memory that the page file stands for."""
        import mmap

        return mmap.mmap(-1, nbytes)

    def refuses_memory(self, error: OSError) -> bool:
        """Look at the system's own number: what cannot be committed is an invalid argument by Python's."""
        return error.winerror in _NO_MEMORY or super().refuses_memory(error)

    def cache_folder(self) -> Path:
        """Return the folder for what stays on this computer: Local in the profile's AppData as a rule."""
        import platformdirs

        return platformdirs.user_cache_path()

    def name(self) -> str:
        """Return its name, which changes with the build alone."""
        found = sys.getwindowsversion()
        kind = "Windows" if found.product_type == _WORKSTATION else "Windows Server"
        return f"{kind} {found.major}.{found.minor}.{found.build}"

    def core_count(self) -> int:
        """Return the cores of the process's affinity, cut by its job's quota."""
        active = windows_machine.active_cores()
        affine, quota = windows_machine.usable_cores(), cpu_quota(windows_machine.query_job, active)
        return affine if quota is None else min(affine, max(1, int(quota)))

    def available_memory(self) -> int | None:
        """Return what is free or can be freed at once, cut by what may still be committed, here and in its job."""
        free = free_memory(windows_machine.query_job, windows_machine.committed())
        there = windows_machine.available_memory()
        return there if free is None else min(there, free)

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
        return windows_machine.seconds_since_start()

    def peak_memory(self) -> int | None:
        """Return the largest working set."""
        return windows_machine.peak_memory()

    def huge_pages(self) -> tuple[str, str]:
        """Say that there are none."""
        return "none: Windows gives them to accounts with a privilege of their own, and pio does not ask for it", ""

    def takes_escapes(self, terminal: Any) -> bool:
        """Ask the console; NUL, which says that it is a terminal, takes none, and what has no descriptor its own."""
        from pio.system.windows_console import take_escapes

        try:
            descriptor = terminal.fileno()
        except (AttributeError, OSError, ValueError):
            return True
        return take_escapes(descriptor)

    def input_pipe(self, descriptor: int) -> io.RawIOBase | None:
        """Look into it again and again, for nothing interrupts a call that waits for a pipe."""
        from pio.system.windows_console import PipeInput

        return PipeInput.of(descriptor)

    def has_input(self, descriptor: int, seconds: float) -> bool:
        """Look into a pipe; nothing else keeps anybody waiting that is asked for what it has."""
        from pio.system.windows_console import has_input

        return has_input(descriptor, seconds)

    def has_more_typed(self) -> bool:
        """Return whether keys are left."""
        import msvcrt

        return msvcrt.kbhit()

    def end_in_order(self) -> None:
        """Hold the event back that closes the console, logs off or shuts down."""
        from pio.system.windows_console import end_in_order

        end_in_order()

    def quote(self, text: str) -> str:
        """Put it in double quotes where it needs some, as cmd and the C library read them.

        Before a quote a program reads two backslashes as one. PowerShell reads a quote or a dollar sign within them
        otherwise, and cmd a percent sign.
        """
        return text if _PLAIN.fullmatch(text) else '"' + _BEFORE_QUOTE.sub(r"\1\1", text).replace('"', '\\"') + '"'

    def is_closed_pipe(self, error: OSError, descriptor: int) -> bool:
        """A pipe that nobody reads is broken or invalid; the latter the C library says of much else too."""
        from pio.system.windows_console import is_pipe

        if error.errno != errno.EINVAL:
            return isinstance(error, BrokenPipeError)
        try:
            return is_pipe(descriptor)
        except OSError:
            return False


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
