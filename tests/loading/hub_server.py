"""A small Hugging Face hub on loopback: the part of its API that downloads use, over files held in memory."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

MODEL = re.compile(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Serves repos while it is entered.

    Attributes:
        files: Contents by repo and file name.
        revisions: Commits by branch or tag, the same for every repo.
        refused: Status and error code by repo, or by file name, that a request for it gets.
        cut: For a file name, after how many bytes the connection breaks; once.
        held: For a file name, after how many bytes nothing more comes until ``go_on`` is set; ``holds`` is set then.
        requests: Method, path and Range header of every request.
    """

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        self.files = files
        self.revisions = {"main": "a" * 40, "v2": "b" * 40}
        self.refused: dict[str, tuple[int, str]] = {}
        self.cut: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.holds, self.go_on = threading.Event(), threading.Event()
        self.requests: list[tuple[str, str, str | None]] = []

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fetched(self) -> list[str]:
        """Return the names of the files whose content was sent, in alphabetical order."""
        return sorted(
            path.rsplit("/", 1)[1] for method, path, _ in self.requests if method == "GET" and "/api/" not in path
        )


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # whoever asked may have gone
            super().handle()

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if match := MODEL.fullmatch(path):
            self.api(*match.groups())
        elif match := FILE.fullmatch(path):
            self.file(*match.groups())
        else:
            self.send(404, {}, b"")

    def commit(self, repo: str, revision: str) -> str | None:
        """Return the commit, or None when an error was sent."""
        if repo in self.hub.refused:
            status, code = self.hub.refused[repo]
            self.send(status, {"X-Error-Code": code, "X-Error-Message": code}, b"")
        elif repo not in self.hub.files:
            self.send(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"")
        elif revision in self.hub.revisions.values() or revision in self.hub.revisions:
            return self.hub.revisions.get(revision, revision)
        else:
            self.send(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b"")
        return None

    def api(self, repo: str, what: str, revision: str) -> None:
        commit = self.commit(repo, revision)
        if commit is None:
            return
        files = self.hub.files[repo]
        if what == "revision":
            body: object = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        else:
            body = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
        self.send(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def file(self, repo: str, revision: str, name: str) -> None:
        commit = self.commit(repo, revision)
        if commit is None:
            return
        if name in self.hub.refused:
            status, code = self.hub.refused[name]
            return self.send(status, {"X-Error-Code": code}, b"")
        data = self.hub.files[repo].get(name)
        if data is None:
            return self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"")
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if name.endswith(".safetensors"):
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"'}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and self.command == "GET":
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.send(206, headers, data[start:], name)
        self.send(200, headers, data, name)

    def send(self, status: int, headers: dict[str, str], body: bytes, name: str = "") -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut, held = self.hub.cut.pop(name, None), self.hub.held.get(name, 0)
        if held:
            self.wfile.write(body[:held])
            self.wfile.flush()
            self.hub.holds.set()
            self.hub.go_on.wait()
        self.wfile.write(body[held:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
