"""Connections that end at a certain time, however slowly the other side speaks."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib import request

from pio.errors import OutOfMemoryError
from pio.threads import start


class Deadline:
    """Ends all connections that are made through its handlers when its time is over, within a ``with`` block.

    A timeout of a socket is one of silence: it begins anew with every byte, so a server that sends one now and then
    would be listened to for ever.

    Attributes:
        over: Whether the time is over.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._lock, self._sockets = threading.Lock(), list[socket.socket]()
        self._timer = threading.Timer(max(0.0, seconds), self._end)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        try:
            start(self._timer)
        except RuntimeError as error:
            raise OutOfMemoryError(
                f"the system refuses a thread that ends connections ({error}); free memory"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for each in self._sockets:
                each.close()
            self._sockets.clear()

    def handlers(self) -> list[request.BaseHandler]:
        """Return what opens addresses of http and https."""
        return [_Plain(self), _Secure(self)]

    def watch(self, connected: socket.socket) -> None:
        """End a connection when the time is over: by a socket of its own, for TLS takes the other one away."""
        with self._lock:
            self._sockets.append(connected.dup())
        if self.over:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self.over = True
            for each in self._sockets:
                with suppress(OSError):  # which the other side has closed
                    each.shutdown(socket.SHUT_RDWR)


class _Watched(http.client.HTTPConnection):
    deadline: Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _WatchedSecure(http.client.HTTPSConnection, _Watched):
    """Whose plain connection is watched before it says who it is."""


class _Plain(request.HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: request.Request) -> http.client.HTTPResponse:
        return self.do_open(_made(_Watched, self._deadline), req)


class _Secure(request.HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: request.Request) -> http.client.HTTPResponse:
        return self.do_open(_made(_WatchedSecure, self._deadline), req)


def _made(kind: type[_Watched], deadline: Deadline) -> Any:
    """Return what makes a connection that is watched."""

    def make(*arguments: Any, **options: Any) -> _Watched:
        connection = kind(*arguments, **options)
        connection.deadline = deadline
        return connection

    return make
