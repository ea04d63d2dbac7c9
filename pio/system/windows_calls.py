"""What Windows is asked of files in its own words, where Python's do not reach."""

from __future__ import annotations

import sys

assert sys.platform == "win32"

import ctypes
import msvcrt
from ctypes import wintypes
from functools import cache
from pathlib import Path
from typing import Any, Final

from pio.system.access_list import Access, parse, private
from pio.system.file_errors import ACCESS_DENIED, FILE_NOT_FOUND, SHARING_VIOLATION

READ, ADD_FILE, DELETE = 0x8000_0000, 0x2, 0x1_0000  # what a file or folder is to be opened for
_READ_AND_WRITE: Final = 0xC000_0000
_EVERYBODY_ELSE: Final = 0x7  # may read, write and delete meanwhile
_EXISTING, _ALWAYS = 3, 4
_FOLDERS_TOO, _DELETE_ON_CLOSE = 0x200_0000, 0x400_0000
_INVALID: Final = ctypes.c_void_p(-1).value
_OWNER_AND_LIST: Final = 0x1 | 0x4
_TOKEN_QUERY, _TOKEN_USER = 0x8, 1


def open_error(path: str, access: int) -> int:
    """Return the system's number of the error that opening a file or folder meets, 0 where it can be opened.

    Args:
        path: Where it is.
        access: What for: ``READ``, ``ADD_FILE`` or ``DELETE``. Whatever else is open may stay open.
    """
    handle, code = _open(path, access, _EVERYBODY_ELSE, _EXISTING, _FOLDERS_TOO)
    if handle is None:
        return code
    close(handle)
    return 0


def take(path: str) -> int | None:
    """Make a file that nobody else can open, and that is gone as soon as this process closes it or ends.

    Returns:
        Its handle, or None where somebody else has it open.

    Raises:
        OSError: It cannot be made.
    """
    handle, code = _take(path)
    # Denied is also what was closed and is not gone yet; where nothing is there, it may have gone since.
    gone = code == ACCESS_DENIED and open_error(path, READ) == FILE_NOT_FOUND
    if gone:
        handle, code = _take(path)
    if handle is None and code != SHARING_VIOLATION and (gone or code != ACCESS_DENIED):
        raise OSError(None, ctypes.FormatError(code).strip(), path, code)
    return handle


def close(handle: int) -> None:
    """Close what ``take`` has opened."""
    _kernel32().CloseHandle(handle)


def long_paths() -> bool:
    """Return whether this process may use paths of more than 259 characters."""
    asked: Any = getattr(ctypes.WinDLL("ntdll"), "RtlAreLongPathsEnabled", None)
    if asked is None:
        return True  # the system has no such limit, or says so itself
    asked.restype = ctypes.c_ubyte
    return bool(asked())


def access_of(path: str, descriptor: int | None) -> Access:
    """Return who owns a file or folder, and who may do what with it.

    Args:
        path: Where it is.
        descriptor: Of the file, where it is open for reading: then it is asked, whatever is at the path by now.

    Raises:
        OSError: The system does not say.
    """
    what: str | int = path if descriptor is None else msvcrt.get_osfhandle(descriptor)
    ask = _advapi32().GetFileSecurityW if descriptor is None else _advapi32().GetKernelObjectSecurity
    size = wintypes.DWORD(0)
    ask(what, _OWNER_AND_LIST, None, 0, ctypes.byref(size))
    memory = ctypes.create_string_buffer(size.value)
    if not size.value or not ask(what, _OWNER_AND_LIST, memory, size.value, ctypes.byref(size)):
        raise _last_error(path)
    return parse(memory.raw)


def make_private_folder(folder: Path) -> None:
    """Make a folder which this user and the system's own have for themselves, and what lies in it.

    Raises:
        OSError: It is there, or cannot be made.
    """
    descriptor = ctypes.c_void_p()
    text = private(this_user())
    if not _advapi32().ConvertStringSecurityDescriptorToSecurityDescriptorW(text, 1, ctypes.byref(descriptor), None):
        raise _last_error(str(folder))
    try:
        if not _kernel32().CreateDirectoryW(str(folder), ctypes.byref(_Attributes(descriptor))):
            raise _last_error(str(folder))
    finally:
        _kernel32().LocalFree(descriptor)


@cache
def this_user() -> str:
    """Return the number of the user whom this process works for, as the system writes it.

    Raises:
        OSError: The system does not say.
    """
    token, size, text = wintypes.HANDLE(), wintypes.DWORD(0), wintypes.LPWSTR()
    api = _advapi32()
    if not api.OpenProcessToken(_kernel32().GetCurrentProcess(), _TOKEN_QUERY, ctypes.byref(token)):
        raise _last_error()
    try:
        api.GetTokenInformation(token, _TOKEN_USER, None, 0, ctypes.byref(size))
        memory = ctypes.create_string_buffer(size.value)
        if not api.GetTokenInformation(token, _TOKEN_USER, memory, size.value, ctypes.byref(size)):
            raise _last_error()
        number = ctypes.c_void_p.from_buffer(memory)  # with which the answer begins
        if not api.ConvertSidToStringSidW(number, ctypes.byref(text)):
            raise _last_error()
        found = str(text.value)
        _kernel32().LocalFree(text)
        return found
    finally:
        close(token.value or 0)


class _Attributes(ctypes.Structure):
    """The C struct SECURITY_ATTRIBUTES."""

    _fields_ = (("length", wintypes.DWORD), ("descriptor", ctypes.c_void_p), ("inherited", wintypes.BOOL))

    def __init__(self, descriptor: ctypes.c_void_p) -> None:
        super().__init__(ctypes.sizeof(_Attributes), descriptor, False)


def _open(path: str, access: int, sharing: int, disposition: int, flags: int) -> tuple[int | None, int]:
    """Open a file: its handle, or None and the number of the error."""
    handle: Any = _kernel32().CreateFileW(path, access, sharing, None, disposition, flags, None)
    return (None, ctypes.get_last_error()) if handle in (_INVALID, None) else (int(handle), 0)


def _take(path: str) -> tuple[int | None, int]:
    return _open(path, _READ_AND_WRITE, 0, _ALWAYS, _DELETE_ON_CLOSE)


def _last_error(path: str | None = None) -> OSError:
    code = ctypes.get_last_error()
    return OSError(None, ctypes.FormatError(code).strip(), path, code)


@cache
def _kernel32() -> Any:
    library: Any = ctypes.WinDLL("kernel32", use_last_error=True)
    word, handle, pointer, text = wintypes.DWORD, wintypes.HANDLE, ctypes.c_void_p, wintypes.LPCWSTR
    library.CreateFileW.argtypes = (text, word, word, pointer, word, word, handle)
    library.CreateFileW.restype = handle
    library.CloseHandle.argtypes = (handle,)
    library.CreateDirectoryW.argtypes = (text, pointer)
    library.GetCurrentProcess.restype = handle
    library.LocalFree.argtypes = (pointer,)
    library.LocalFree.restype = pointer
    return library


@cache
def _advapi32() -> Any:
    library: Any = ctypes.WinDLL("advapi32", use_last_error=True)
    word, handle, pointer, text = wintypes.DWORD, wintypes.HANDLE, ctypes.c_void_p, wintypes.LPCWSTR
    library.GetFileSecurityW.argtypes = (text, word, pointer, word, pointer)
    library.GetKernelObjectSecurity.argtypes = (handle, word, pointer, word, pointer)
    library.OpenProcessToken.argtypes = (handle, word, pointer)
    library.GetTokenInformation.argtypes = (handle, ctypes.c_int, pointer, word, pointer)
    library.ConvertSidToStringSidW.argtypes = (pointer, pointer)
    library.ConvertStringSecurityDescriptorToSecurityDescriptorW.argtypes = (text, word, pointer, pointer)
    return library
