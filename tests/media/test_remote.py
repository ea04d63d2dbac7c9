"""Pictures from the network, from a server that runs here."""

import http.client
import http.server
import threading
from urllib import request

import pytest
from pictures import file_of, gradient

from pio.errors import ConfigError, MediaError
from pio.media import remote
from pio.media._deadline import Deadline
from pio.media.picture import open_picture
from pio.testing.compare import bits

DATA = file_of(gradient(), "PNG")


class Handler(http.server.BaseHTTPRequestHandler):
    asked: list[str]
    silent: threading.Event

    def do_GET(self):
        type(self).asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if name == "away":
            self.send_response(302)
            self.send_header("Location", type(self).away)
            self.end_headers()
        elif name == "round":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
        elif name == "silent":
            type(self).silent.wait()
        elif name == "slow.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(DATA[:100])
            self.wfile.flush()
            type(self).silent.wait()
        elif name == "missing":
            self.send_error(404)
        else:
            self.send_response(200)
            if name == "short.png":
                self.send_header("Content-Length", str(len(DATA) + 10))
            self.end_headers()
            self.wfile.write(b"" if name == "empty.png" else DATA)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    Handler.asked, Handler.silent = [], threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        Handler.silent.set()
        running.shutdown()
        thread.join()


def test_a_picture_from_an_address_that_is_allowed(server):
    for allow in (
        [server],
        [server + "/"],
        [server + "/pictures/"],
        [server + "/pictures"],
        [server + "/pictures/a.png"],
    ):
        found = open_picture(server + "/pictures/a.png", allow_remote=allow)
        assert bits(found.pixels) == gradient().tobytes()


def test_other_addresses_are_not_asked(server):
    port = int(server.rpartition(":")[2])
    refused = [
        (server + "/pictures/a.png", ()),
        (server + "/pictures/a.png", [server + "/other/"]),
        (server + "/pictures2/a.png", [server + "/pictures"]),
        (server + "/pictures/../a.png", [server + "/pictures/"]),
        (server + "/pictures/%2e%2e/a.png", [server + "/pictures/"]),
        (server.replace("127.0.0.1", "localhost") + "/a.png", [server]),
        (server + "/a.png", [f"http://127.0.0.1:{port + 1}/"]),
        (server + "/a.png", [server.replace("http:", "https:")]),
        (server.replace("127.0.0.1", "127.0.0.1@127.0.0.1") + "/a.png", [server]),
        (server + "/a\tb.png", [server]),
        (server + "\\a.png", [server]),
        ("http://", [server]),
        ("http://[::1/a.png", [server]),
        ("http://127.0.0.1:99999/a.png", [server]),
    ]
    for url, allow in refused:
        with pytest.raises(MediaError, match=r"allow_remote=\[|no plain address"):
            open_picture(url, allow_remote=allow)
    assert Handler.asked == []


def test_the_remedy_can_be_copied():
    with pytest.raises(MediaError, match=r"set allow_remote=\['https://example.com/'\]"):
        open_picture("https://example.com/a.png")


def test_redirections_are_followed_where_they_are_allowed(server):
    Handler.away = "/pictures/a.png"
    assert bits(open_picture(server + "/away", allow_remote=[server]).pixels) == gradient().tobytes()
    for place in ("/pictures/a.png", "http://localhost/secret", "file:///etc/hostname", "ftp://127.0.0.1/a"):
        Handler.asked, Handler.away = [], place
        with pytest.raises(MediaError, match=r"which leads to|cannot be fetched|answers"):
            open_picture(server + "/away", allow_remote=[server + "/away"])
        assert Handler.asked == ["/away"]
    with pytest.raises(MediaError, match="answers 302"):
        open_picture(server + "/round", allow_remote=[server])
    assert len(Handler.asked) < 12


def test_what_a_server_may_do_wrong(server, monkeypatch):
    for name, words in (
        ("/missing", "the server answers 404"),
        ("/empty.png", "0 bytes came"),
        ("/short.png", f"{len(DATA)} bytes came, {len(DATA) + 10} were announced|cannot be fetched"),
    ):
        with pytest.raises(MediaError, match=words):
            open_picture(server + name, allow_remote=[server])
    with pytest.raises(MediaError, match="is longer than 100 bytes"):
        open_picture(server + "/a.png", allow_remote=[server], max_bytes=100)


@pytest.mark.parametrize("name", ["silent", "slow.png", "away"])
def test_a_server_has_one_time_for_all_that_it_says(server, monkeypatch, name):
    Handler.away = "/silent"
    monkeypatch.setattr(remote, "DEADLINE", 0.05)
    with pytest.raises(MediaError, match=r"took longer than 0\.05 seconds; download it and give its path"):
        open_picture(f"{server}/{name}", allow_remote=[server])


def test_a_connection_that_is_made_too_late_is_ended(server):
    with Deadline(-1.0) as deadline:
        deadline._timer.join()
        opener = request.OpenerDirector()
        for handler in deadline.handlers():
            opener.add_handler(handler)
        with pytest.raises((OSError, http.client.HTTPException)):
            opener.open(server + "/silent")


def test_a_server_that_is_not_there(server):
    port = int(server.rpartition(":")[2])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        free = other.server_port
    assert free != port
    with pytest.raises(MediaError, match=r"cannot be fetched.*download it and give its path"):
        open_picture(f"http://127.0.0.1:{free}/a.png", allow_remote=[f"http://127.0.0.1:{free}/"])


@pytest.mark.parametrize(
    "allow", ["https://example.com/", ["example.com"], ["https://"], ["file:///tmp/"], ["https://a/?b"]]
)
def test_prefixes_are_checked(allow):
    with pytest.raises(ConfigError, match="allow_remote"):
        open_picture("https://example.com/a.png", allow_remote=allow)
