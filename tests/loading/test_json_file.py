from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.errors import CheckpointError
from pio.loading.json_file import more_than, parse_object, read_object

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab[]{},:"\\\n\u00e9\u2028', max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('x[{,"\\', max_size=6), inner, max_size=4),
    max_leaves=12,
)


def brackets(value: Any) -> Iterator[str]:
    """What opens in the text of a value."""
    if isinstance(value, dict):
        yield "{"
        for inner in value.values():
            yield from brackets(inner)
    if isinstance(value, list):
        yield "["
        for inner in value:
            yield from brackets(inner)


@given(st.dictionaries(st.text(max_size=5), values, max_size=5), st.booleans())
def test_brackets_in_strings_do_not_count(value: dict[str, Any], ascii_only: bool) -> None:
    data, count = json.dumps(value, ensure_ascii=ascii_only).encode(), len(list(brackets(value)))
    assert more_than(count - 1, b"[{", data) and not more_than(count, b"[{", data)


@pytest.mark.parametrize("before", [0, 65_530, 65_534, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("text", ["[[[", "\\", '"', '\\"[', "[\\\\", '"\\\\["'])
def test_strings_that_lie_across_pieces(before: int, text: str) -> None:
    data = json.dumps({"a" * before: [text, [1]], text: text}).encode()
    assert more_than(2, b"[{", data) and not more_than(3, b"[{", data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),  # as editors of Windows save it
        (b'{"a": [1, 2]}\r\n', {"a": [1, 2]}),
        (b'{"a": Infinity, "b": -Infinity, "c": 1e999}', {"a": float("inf"), "b": -float("inf"), "c": float("inf")}),
        ('{"a": "' + "," * 300_000 + '"}', {"a": "," * 300_000}),
    ],
)
def test_what_is_read(data: bytes | str, found: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    assert read_object(path, max_bytes=1_000_000) == found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('{"a": 1}'.encode("utf-16"), "UTF-8 text at byte 0 .*save it as UTF-8"),
        (b'{"a": "\xff"}', "UTF-8 text at byte 7"),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        (b'{"a": 1, "b": 2, "a": 1}', "'a' twice"),
        (b'{"a": [' + b"[]," * 200_000 + b"1]}", "more than 200000 values"),
        (b'{"a": "\\\\", "b": [' + b"[]," * 200_000 + b"1]}", "more than 200000 values"),  # a string that ends so
        (b"", "not valid JSON"),
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json .*{words}"):
        parse_object(data, "config.json")
