"""Files from the network, only from addresses that the caller named."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from typing import IO, Any, Final
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult

from pio.errors import ConfigError, MediaError
from pio.loading.address import begins_addresses, plain_address
from pio.loading.model_file import shown
from pio.media._deadline import Deadline
from pio.version import __version__

SILENCE: Final = 10.0  # seconds in which a server says nothing until it is given up
DEADLINE: Final = 60.0  # seconds for the whole file, and what a server says before it
_PORTS: Final = {"http": 80, "https": 443}
_PIECE: Final = 1 << 16  # bytes
_REDIRECTS: Final = 5


def fetch(url: str, where: str, max_bytes: int, allow: Sequence[str]) -> bytes:
    """Return what lies at an address, asked for by GET without credentials.

    Args:
        url: An address of http or https.
        where: What messages call it.
        max_bytes: The largest answer.
        allow: What addresses may begin with; redirections are followed to such ones only.

    Raises:
        MediaError: The address is not allowed, or the server does not give the file.
        ConfigError: ``allow`` holds no prefixes of addresses.
    """
    prefixes = _prefixes(allow)
    _check(url, where, prefixes)
    opener, deadline = request.OpenerDirector(), Deadline(DEADLINE)
    for handler in (
        request.ProxyHandler(),
        *deadline.handlers(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        _Redirects(where, prefixes),
    ):
        opener.add_handler(handler)
    asked = request.Request(url, headers={"User-Agent": f"pio/{__version__}", "Accept": "image/*, video/*, */*;q=0.1"})
    try:
        with deadline, opener.open(asked, timeout=SILENCE) as answer:
            return _read(answer, where, max_bytes, deadline)
    except HTTPError as error:
        with error:
            raise MediaError(
                f"{where}: the server answers {error.code} ({shown(str(error.reason))}); see it there"
            ) from error
    except (URLError, OSError, http.client.HTTPException, ValueError) as error:
        if deadline.over:
            raise _late(where) from error
        reason = getattr(error, "reason", error)
        raise MediaError(f"{where} cannot be fetched: {shown(str(reason))}; download it and give its path") from error


class _Redirects(request.HTTPRedirectHandler):
    """Follows where the caller allowed it."""

    max_redirections = _REDIRECTS

    def __init__(self, where: str, prefixes: Sequence[SplitResult]) -> None:
        self._where, self._prefixes = where, prefixes

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> request.Request | None:
        _check(newurl, f"{self._where}, which leads to {shown(newurl)},", self._prefixes)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _late(where: str) -> MediaError:
    return MediaError(f"{where} took longer than {DEADLINE:g} seconds; download it and give its path")


def _read(answer: Any, where: str, max_bytes: int, deadline: Deadline) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := answer.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise MediaError(f"{where} is longer than {max_bytes} bytes; give a smaller file")
    if deadline.over:
        raise _late(where)
    expected = answer.headers.get("Content-Length", "")
    if not size or (expected.isdecimal() and int(expected) != size):
        raise MediaError(f"{where}: {size} bytes came, {expected or 'some'} were announced; ask again")
    return b"".join(pieces)


def _prefixes(allow: Sequence[str]) -> list[SplitResult]:
    if isinstance(allow, str):
        raise ConfigError(f"allow_remote is {shown(allow)}, expected a list of addresses, such as [{shown(allow)}]")
    found: list[SplitResult] = []
    for prefix in allow:
        parts = begins_addresses(prefix)
        if parts is None:
            raise ConfigError(
                f"allow_remote holds {shown(prefix)}, expected what addresses begin with, such as 'https://example.com/'"
            )
        found.append(parts)
    return found


def _check(url: str, where: str, prefixes: Sequence[SplitResult]) -> None:
    parts = plain_address(url)
    if parts is None:
        raise MediaError(f"{where} is no plain address of http or https; write it without user names, spaces and dots")
    if not any(_covers(prefix, parts) for prefix in prefixes):
        raise MediaError(
            f"{where} lies on the network, where nothing is read unless it is named: download it and give its path, or "
            f"set allow_remote=[{parts.scheme + '://' + parts.netloc + '/'!r}]"
        )


def _covers(prefix: SplitResult, parts: SplitResult) -> bool:
    def place(of: SplitResult) -> tuple[str, str | None, int]:
        return of.scheme, of.hostname, of.port or _PORTS[of.scheme]

    if place(prefix) != place(parts):
        return False
    begin, path = prefix.path or "/", parts.path or "/"
    return path == begin or path.startswith(begin if begin.endswith("/") else begin + "/")
