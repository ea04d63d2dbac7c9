"""Gives files and folders on Windows an access list."""

import ctypes
from pathlib import Path

FOR_EVERYBODY = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;OW)(A;OICI;FA;;;WD)"


def give(path: Path, sddl: str) -> None:
    """Set the access list of a file or folder to one that is written as text."""
    library, descriptor = ctypes.WinDLL("advapi32"), ctypes.c_void_p()
    assert library.ConvertStringSecurityDescriptorToSecurityDescriptorW(sddl, 1, ctypes.byref(descriptor), None)
    assert library.SetFileSecurityW(str(path), 4, descriptor)
