"""Windows' console and pipes: escape sequences, the events that end a process, and waits that Ctrl-C ends."""

from __future__ import annotations

import sys

assert sys.platform == "win32"

import _thread
import ctypes
import io
import msvcrt
import os
import signal
import threading
import time
from ctypes import wintypes
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ESCAPES: Final = 4  # ENABLE_VIRTUAL_TERMINAL_PROCESSING
_PIPE: Final = 3  # FILE_TYPE_PIPE
_BREAK_EVENT, _CLOSE_EVENT, _LOGOFF_EVENT, _SHUTDOWN_EVENT = 1, 2, 5, 6
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.05  # seconds from one look into a pipe to the next

_system = ctypes.WinDLL("kernel32", use_last_error=True)
_system.GetConsoleMode.argtypes = (wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
_system.SetConsoleMode.argtypes = (wintypes.HANDLE, wintypes.DWORD)
_system.GetFileType.argtypes = (wintypes.HANDLE,)
_system.PeekNamedPipe.argtypes = (wintypes.HANDLE, *(ctypes.c_void_p, wintypes.DWORD, *(ctypes.c_void_p,) * 3))
_system.GetCurrentProcessId.restype = wintypes.DWORD
_system.ProcessIdToSessionId.argtypes = (wintypes.DWORD, ctypes.POINTER(wintypes.DWORD))
_Handler = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)
_system.SetConsoleCtrlHandler.argtypes = (_Handler, wintypes.BOOL)
_handlers: list[Any] = []  # what the system calls must live as long as the process


def take_escapes(descriptor: int) -> bool:
    """Have a console take escape sequences; return whether it does.

    Args:
        descriptor: Of what may be a console; files and devices such as NUL are none.

    Raises:
        OSError: It is closed.
    """
    handle, mode = msvcrt.get_osfhandle(descriptor), wintypes.DWORD()
    if not _system.GetConsoleMode(handle, ctypes.byref(mode)):
        return False
    return bool(mode.value & _ESCAPES or _system.SetConsoleMode(handle, mode.value | _ESCAPES))


def end_in_order() -> None:
    """Have SIGBREAK come also where the console is closed, and the system wait until this process has ended by itself.

    It ends a process whose handler returns from such an event.
    """
    handler = _Handler(on_event)
    _handlers.append(handler)
    _system.SetConsoleCtrlHandler(handler, True)


def on_event(event: int) -> bool:
    """Do what a console's event asks for, in the thread that the system makes for it; False leaves it to others."""
    if event not in (_BREAK_EVENT, _CLOSE_EVENT, _LOGOFF_EVENT, _SHUTDOWN_EVENT):
        return False
    if event == _LOGOFF_EVENT and is_service():
        return True  # a service is told of every user who logs off, and goes on
    if signal.getsignal(signal.SIGBREAK) in (signal.SIG_DFL, signal.SIG_IGN, None):
        return False
    _thread.interrupt_main(signal.SIGBREAK)
    if event != _BREAK_EVENT:
        threading.Event().wait()  # this thread ends with the process, or when the system has lost its patience
    return True


def is_service() -> bool:
    """Return whether this process runs in the session of services, to which no user logs on."""
    session = wintypes.DWORD()
    asked = _system.ProcessIdToSessionId(_system.GetCurrentProcessId(), ctypes.byref(session))
    return bool(asked) and session.value == 0


def is_pipe(descriptor: int) -> bool:
    """Return whether a descriptor is one end of a pipe, be it broken.

    Raises:
        OSError: It is closed.
    """
    return _system.GetFileType(msvcrt.get_osfhandle(descriptor)) == _PIPE


def has_input(descriptor: int, seconds: float) -> bool:
    """Wait until a pipe holds something, or its end; return False where nothing came in that time.

    What is no pipe, a console too, is not waited for: it counts as one that holds something.
    """
    deadline, pause = time.monotonic() + seconds, _FIRST_LOOK
    while not _has_some(msvcrt.get_osfhandle(descriptor)):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LAST_LOOK)
    return True


def _has_some(handle: int) -> bool:
    held = wintypes.DWORD()
    if _system.GetFileType(handle) != _PIPE:
        return True
    found = _system.PeekNamedPipe(handle, None, 0, None, ctypes.byref(held), None)
    return not found or held.value > 0  # one that whoever writes it has closed cannot be looked into


class PipeInput(io.RawIOBase):
    """A pipe, read so that signal handlers run while nothing comes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, descriptor: int) -> PipeInput | None:
        """Return a reader for a descriptor, None where it is no pipe."""
        return cls(descriptor) if is_pipe(descriptor) else None

    def readable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read what has come, at least a byte; nothing at the end."""
        target = memoryview(buffer).cast("B")
        while not has_input(self._descriptor, 60):
            pass
        found = os.read(self._descriptor, len(target))
        target[: len(found)] = found
        return len(found)
