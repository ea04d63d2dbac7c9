"""Options that name a file of JSON: what is read, and what is refused, for each of them alike."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from needs import needs_fifos

from pio.cli.json_option import read_json
from pio.cli.response_format import read_response_format
from pio.cli.tools import tool_fields
from pio.errors import ConfigError

TEXT = '[{"name": "é"}]'
VALUE = [{"name": "é"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_whatever_an_editor_wrote_is_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "it.json"
    file.write_bytes(TEXT.encode(encoding))
    assert read_json("--it", str(file), len(file.read_bytes()), "") == VALUE
    assert tool_fields(str(file), None) == {"tools": VALUE} and read_response_format(str(file)) == VALUE


@needs_fifos
def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (lambda given: tool_fields(given, None)["tools"], read_response_format):
        writer = threading.Thread(target=pipe.write_text, args=(TEXT, "utf-8"))
        writer.start()
        assert read(str(pipe)) == VALUE
        writer.join()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "cannot be read: "),
        (b"", "is no JSON"),
        (b"[1, 2", "is no JSON"),
        (b"\xff\xfe\xfd", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[NaN]", "is no JSON"),
        (b"[1e999]", "'1e999' is larger than any number"),
        (b" " * 200_001, "holds more than 200,000 bytes"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, data: bytes | None, told: str) -> None:
    file = tmp_path / "it.json"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(ConfigError, match=told) as caught:
        read_json("--it", str(file), 200_000, "expected something else")
    assert str(caught.value).startswith("--it: '") and str(caught.value).endswith("; expected something else")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("path", ["no\0file", "."])
def test_a_path_that_is_no_file(path: str) -> None:
    with pytest.raises(ConfigError, match=r"^--it: "):
        read_json("--it", path, 10, "expected a file")
