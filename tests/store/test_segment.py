"""Segments: what is written is read back, and whatever else a file holds is refused in bounded time and memory."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pio.loading.safetensors import SafetensorsFile
from pio.loading.safetensors_writer import ALIGNMENT
from pio.store.segment import (
    MAX_HEADER,
    MAX_ITEMS,
    Item,
    Segment,
    SegmentError,
    Stored,
    checksum,
    header_length,
    make_header,
    parse,
)

ROOT = bytes(range(32))
KEYS = st.binary(min_size=32, max_size=32)
ITEMS = st.lists(
    st.tuples(st.builds(Item, st.sampled_from(["block", "states"]), KEYS, KEYS | st.none()), st.binary(max_size=50)),
    max_size=6,
    unique_by=lambda given: given[0].name,
)


def written(items: list[tuple[Item, bytes]], root: bytes = ROOT) -> bytes:
    rows = [(item, len(data), checksum(root, item, [memoryview(data)])) for item, data in items]
    return make_header(root, rows) + b"".join(data for _, data in items)


def read(file: bytes, root: bytes = ROOT) -> list[Stored]:
    length = header_length(file[:8], len(file))
    return parse(file[8 : 8 + length], len(file), root)


@given(ITEMS)
def test_what_is_written_is_read(items: list[tuple[Item, bytes]]) -> None:
    file = written(items)
    found = read(file)
    assert {stored.item: file[stored.begin : stored.begin + stored.nbytes] for stored in found} == dict(items)
    for stored in found:
        data = memoryview(file)[stored.begin : stored.begin + stored.nbytes]
        half = len(data) // 2
        assert checksum(ROOT, stored.item, [data[:half], data[half:]]) == stored.checksum


def test_it_is_a_safetensors_file(tmp_path: Any) -> None:
    items = [(Item("block", bytes([i]) * 32), bytes(range(i, i + 40))) for i in range(3)]
    (tmp_path / "a.safetensors").write_bytes(written(items))
    file = SafetensorsFile(tmp_path / "a.safetensors")
    assert {name: bytes(file.tensor(name).memoryview()) for name in file.names} == {i.name: d for i, d in items}
    assert file.metadata["format"] == "pio prefix cache 1" and file.metadata["root"] == ROOT.hex()
    assert len(written(items)) % ALIGNMENT == 3 * 40 % ALIGNMENT


@given(ITEMS.filter(bool), st.data())
def test_a_flipped_bit_gives_no_wrong_item(items: list[tuple[Item, bytes]], data: st.DataObject) -> None:
    """Whatever is still found under a name of an item is that item, to the bit."""
    file = bytearray(written(items))
    at, bit = data.draw(st.integers(0, len(file) - 1)), data.draw(st.integers(0, 7))
    file[at] ^= 1 << bit
    try:
        found = read(bytes(file))
    except SegmentError:
        return
    for stored in found:
        held = memoryview(file)[stored.begin : stored.begin + stored.nbytes]
        if checksum(ROOT, stored.item, [held]) == stored.checksum:
            assert (stored.item.kind, stored.item.key) in {(item.kind, item.key) for item, _ in items}
            assert bytes(held) == next(d for i, d in items if (i.kind, i.key) == (stored.item.kind, stored.item.key))


@given(ITEMS.filter(bool), st.data())
def test_a_file_that_was_cut_short_is_refused(items: list[tuple[Item, bytes]], data: st.DataObject) -> None:
    file = written(items)
    end = data.draw(st.integers(0, len(file) - 1))
    with pytest.raises(SegmentError):
        read(file[:end])


def test_what_is_of_another_store_is_refused() -> None:
    file = written([(Item("block", b"k" * 32), b"data")])
    with pytest.raises(SegmentError, match="another model, or of a cache of another type"):
        read(file, b"x" * 32)
    with pytest.raises(SegmentError, match="no segment of a prefix cache of this version"):
        read(file.replace(b"cache 1", b"cache 2"))


def json_values() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False)
    names = st.sampled_from(["__metadata__", "format", "root", "dtype", "shape", "data_offsets", "block." + "ab" * 32])
    return st.recursive(
        plain | st.sampled_from(["pio prefix cache 1", ROOT.hex(), "U8", "01234567 -", [0, 4], [4]]),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=4), inner, max_size=5),
        max_leaves=20,
    )


@given(json_values(), st.integers(0, 40))
@example({"__metadata__": {"format": "pio prefix cache 1", "root": ROOT.hex()}}, 0)
def test_any_header_is_parsed_or_refused(value: Any, behind: int) -> None:
    raw = json.dumps(value).encode()
    try:
        found = read(len(raw).to_bytes(8, "little") + raw + bytes(behind))
    except SegmentError:
        return
    assert sum(stored.nbytes for stored in found) == behind


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(file: bytes) -> None:
    with pytest.raises(SegmentError):
        read(file)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * MAX_HEADER,
        b'{"a":' * (MAX_HEADER // 5),
        b'{"__metadata__":{' + b",".join(b'"%d":""' % i for i in range(90_000)) + b"}}",
        b'{"' + b"x" * (MAX_HEADER - 10) + b'":1}',
        b"{" + b" " * (MAX_HEADER - 2) + b"}",
        b'{"a":' + b"9" * 1_000_000 + b"}",
    ],
)
def test_a_hostile_header_takes_little(raw: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SegmentError):
            read(len(raw).to_bytes(8, "little") + raw)
        assert tracemalloc.get_traced_memory()[1] < 40 * MAX_HEADER
    finally:
        tracemalloc.stop()


def test_a_header_of_any_length_is_not_even_read() -> None:
    for length in (MAX_HEADER + 1, 1 << 40, (1 << 64) - 1):
        with pytest.raises(SegmentError, match="does not begin as one"):
            header_length(length.to_bytes(8, "little"), 1 << 50)
    with pytest.raises(SegmentError, match="cut short"):
        header_length((100).to_bytes(8, "little"), 107)


def test_as_many_items_as_there_may_be_fit_into_a_header() -> None:
    items = [(Item("snapshot", i.to_bytes(32, "big"), b"p" * 32), 1 << 40, i) for i in range(MAX_ITEMS)]
    header = make_header(ROOT, items)
    assert len(header) <= MAX_HEADER
    assert len(parse(header[8:], len(header) + MAX_ITEMS * (1 << 40), ROOT)) == MAX_ITEMS


def test_what_a_segment_continues() -> None:
    keys = [bytes([i]) * 32 for i in range(4)]
    items = [(Item("block", keys[i], keys[i - 1] if i else None), b"x") for i in range(4)]
    whole, end = (Segment("s", read(written(some))) for some in (items, items[2:]))
    assert whole.parents == set() and end.parents == {keys[1]} and end.keys == {keys[2], keys[3]}
