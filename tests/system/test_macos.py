"""macOS, of which a double of its C library says what its documentation says; the system itself is not asked."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("needs a system that follows POSIX", allow_module_level=True)

from pio.system import macos
from pio.system.interface import Call
from pio.system.macos import MacOS

M2: dict[str, int | str] = {
    "hw.perflevel0.logicalcpu": 8,
    "machdep.cpu.brand_string": "Apple M2 Pro",
    "hw.optional.arm.FEAT_FP16": 1,
    "hw.optional.arm.FEAT_DotProd": 1,
    "hw.optional.arm.FEAT_I8MM": 1,
    "hw.optional.arm.FEAT_BF16": 0,
}


def function(do: Callable[..., Any]) -> Any:
    """Return a function of a library: it takes what its types say, and asks for as many arguments."""

    class Function:
        argtypes: tuple[type, ...] = ()
        restype: type | None = None

        def __call__(self, *arguments: Any) -> Any:
            assert len(self.argtypes) == len(arguments), "its arguments have no types"
            return do(*arguments)

    return Function()


def library(known: dict[str, int | str], **functions: Any) -> SimpleNamespace:
    """Return a C library whose sysctl knows these."""

    def sysctlbyname(name: bytes, into: Any, size: Any, new: None, length: int) -> int:
        value = known.get(name.decode())
        if value is None:
            return -1
        content = value.to_bytes(4, "little") if isinstance(value, int) else value.encode() + b"\0"
        assert len(content) <= size._obj.value and new is None and length == 0
        ctypes.memmove(into, content, len(content))
        size._obj.value = len(content)
        return 0

    return SimpleNamespace(sysctlbyname=function(sysctlbyname), **functions)


def system(monkeypatch: pytest.MonkeyPatch, known: dict[str, int | str], **functions: Any) -> MacOS:
    made = library(known, **functions)
    monkeypatch.setattr(macos, "program", lambda: made)
    return MacOS()


def test_what_sysctl_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    here = system(monkeypatch, M2)
    assert here.processor_features() == {"fullfp16", "dotprod", "i8mm"}
    assert (here.core_count(), here.processor_name()) == (8, "Apple M2 Pro")


def test_what_an_older_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    here = system(monkeypatch, {})
    assert here.processor_features() == frozenset()
    assert (here.core_count(), here.processor_name()) == (os.cpu_count(), os.uname().machine)


def test_threads_sleep_on_an_address_where_the_system_has_that(monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = system(monkeypatch, {}), system(monkeypatch, {}, os_sync_wait_on_address=None)
    assert (older.sleep.function, older.wake) == ("usleep", None)
    assert newer.sleep == Call("os_sync_wait_on_address", ("address", "value", 4, 0))
    assert newer.wake == Call("os_sync_wake_by_address_all", ("address", 4, 0))


def with_list(
    monkeypatch: pytest.MonkeyPatch, entries: int | None, number: int = errno.ENOENT
) -> tuple[MacOS, list[Any]]:
    """Return a system whose files have an access list of so many entries, or none; and what it was asked for."""
    asked: list[Any] = []

    def get(what: bytes | int, kind: int) -> int | None:
        assert kind == 0x100
        asked.append(what)
        ctypes.set_errno(number if entries is None else 0)
        return None if entries is None else 1 << 40

    def free(found: int) -> int:
        asked.append(found)
        return 0

    here = system(
        monkeypatch,
        {},
        acl_get_file=function(get),
        acl_get_fd_np=function(get),
        acl_get_entry=function(lambda found, which, into: 0 if found == 1 << 40 and which == 0 and entries else -1),
        acl_free=function(free),
    )
    return here, asked


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("entries", [None, 0, 2])
def test_an_access_list_may_let_others_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entries: int | None, opened: bool
) -> None:
    here, asked = with_list(monkeypatch, entries)
    path = tmp_path / "file"
    path.touch(0o600)
    with open(path, "rb") as file:
        descriptor = file.fileno() if opened else None
        reason = here.distrust(path, descriptor)
    expected = f"{path} has an access list, which may let others write it; chmod -N {path}"
    assert reason == (expected if entries else None)
    assert asked == [os.fsencode(path) if descriptor is None else descriptor] + [1 << 40] * (entries is not None)


def test_a_disk_without_access_lists_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert with_list(monkeypatch, None, errno.ENOTSUP)[0].distrust(tmp_path, None) is None


def test_a_list_that_the_system_does_not_tell_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(PermissionError) as found:
        with_list(monkeypatch, None, errno.EACCES)[0].distrust(tmp_path, None)
    assert found.value.filename == str(tmp_path)


def test_a_mode_that_lets_others_write_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here, asked = with_list(monkeypatch, 2)
    tmp_path.chmod(0o777)
    assert "chmod go-w" in (here.distrust(tmp_path, None) or "") and asked == []
