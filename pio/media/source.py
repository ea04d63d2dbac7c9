"""Where a picture or a video lies: a file, bytes, a data URI or an address, as a stream that can be read."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from pio.errors import MediaError
from pio.loading.model_file import shown, shown_path
from pio.media.remote import fetch
from pio.memory.refusal import memory_refused
from pio.system import HERE

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://|data:", re.IGNORECASE)
_SHOWN = 60  # characters of a URI in messages
_URL_SAFE = bytes.maketrans(b"-_", b"+/")  # what base64 of addresses has in the place of two letters


def is_source(source: object) -> bool:
    """Return whether this says where something lies."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview))


def open_source(source: Any, name: str, max_bytes: int, allow_remote: Sequence[str] = ()) -> tuple[BinaryIO, str]:
    """Open what a caller gave; ``is_source`` holds for it.

    Returns:
        A stream, which the caller closes, at its beginning, and words for it in messages, ``name`` first.

    Raises:
        MediaError: It cannot be read, is larger than ``max_bytes``, or lies where nothing is to be read.
        ConfigError: ``allow_remote`` cannot be used.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        where, data = f"{name} (bytes)", cast("bytes", source)
        try:
            size = memoryview(data).nbytes
            check_size(where, size, max_bytes)
            return io.BytesIO(data), where  # which copies no bytes, but other buffers
        except (ValueError, BufferError) as error:  # a view that was released, or has gaps that cannot be copied
            raise MediaError(f"{where} cannot be read ({error}); give the bytes themselves") from error
    path = os.fsdecode(cast("str", source))
    found = _SCHEME.match(path) if isinstance(source, str) else None
    scheme = found and (found[1] or "data").lower()
    where = f"{name} {shown(path, _SHOWN)}"
    if scheme == "data":
        return io.BytesIO(_of_data_uri(path, where, max_bytes)), where
    if scheme in ("http", "https"):
        return io.BytesIO(fetch(path, where, max_bytes, allow_remote)), where
    if scheme == "file":
        path = _of_file_uri(path, where)
    elif scheme is not None:
        raise MediaError(f"{where}: addresses of {scheme} are not read; give a path, bytes or a data: URI")
    return _open_file(path, f"{name} {shown_path(path)}", max_bytes)


def check_size(where: str, size: int, limit: int) -> None:
    """Raise a MediaError where there are no bytes, or more than the limit."""
    if not size:
        raise MediaError(f"{where} holds 0 bytes; give the whole file")
    if size > limit:
        raise MediaError(f"{where} holds {size} bytes, at most {limit} are accepted; make it smaller")


def _of_data_uri(uri: str, where: str, max_bytes: int) -> bytes:
    head, comma, data = uri.partition(",")
    if not comma:
        raise MediaError(f"{where} has no comma; a data URI is data:image/png;base64,... with the data behind a comma")
    check_size(where, len(data) * 3 // 4, max_bytes)
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        raw = unquote_to_bytes(data) if "%" in data else data.encode("ascii")
        raw = re.sub(rb"[\s=]+", b"", raw).translate(_URL_SAFE)
        decoded = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise MediaError(f"{where} is no base64 behind its comma ({error}); encode the file's bytes again") from error
    check_size(where, len(decoded), max_bytes)
    return decoded


def _of_file_uri(uri: str, where: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise MediaError(f"{where} names the machine {shown(parts.netloc)}; write file:///path, with three slashes")
    path = unquote(parts.path, errors="surrogateescape")
    return path[1:] if os.path.splitdrive(path[1:])[0] else path  # /C:/folder is C:/folder, where drives have letters


def _open_file(path: str, where: str, max_bytes: int) -> tuple[BinaryIO, str]:
    try:
        descriptor = os.open(path, HERE.read_flags)
    except OSError as error:
        raise _unreadable(path, where, error) from error
    except ValueError as error:  # a NUL in the name
        raise MediaError(f"{where} is not a usable file name; correct the path") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            found = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise MediaError(f"{where} is {found}; give the path of a file")
        check_size(where, status.st_size, max_bytes)
        return open(descriptor, "rb"), where
    except BaseException:
        os.close(descriptor)
        raise


def _unreadable(path: str, where: str, error: OSError) -> Exception:
    refused = memory_refused(error, f"reading {where}")
    if refused is not None:
        return refused
    remedy = HERE.file_problem(path, error)
    if remedy is None and isinstance(error, FileNotFoundError):
        remedy = "there is no such file; correct the path (base64 belongs behind data:image/png;base64,)"
    elif remedy is None and isinstance(error, PermissionError):
        folder = Path(path).is_dir()  # which Windows opens for nobody
        remedy = "it is a folder; give the path of a file" if folder else f"this user may not; {HERE.permission_remedy}"
    elif remedy is None:
        remedy = f"{error.strerror or error}; correct the path (base64 belongs behind data:image/png;base64,)"
    return MediaError(f"{where} cannot be read: {remedy}")
