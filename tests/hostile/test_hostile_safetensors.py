from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hostile_folder import DATA, HEADER, packed, refused, with_entry
from needs import needs_fifos, needs_limits

from pio.loading.safetensors import SafetensorsFile

ENTRY = '"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}'
REST = '"b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]}'


def load(path: Path) -> SafetensorsFile:
    return SafetensorsFile(path)


def test_the_unspoilt_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed(HEADER))
    assert load(path).names == ("a", "b")


def overlapping() -> bytes:
    return packed(with_entry("b", data_offsets=[20, 30]), DATA[:30])


def gap() -> bytes:
    return packed(with_entry("b", data_offsets=[26, 36]), DATA + b"..")


CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "7 bytes"),
    "length only": (packed("", b""), "header starts with"),
    "truncated data": (packed(HEADER, DATA[:-1]), "33 bytes of data"),
    "trailing data": (packed(HEADER, DATA + b"!"), "35 bytes of data"),
    "truncated header": (packed(HEADER)[:40], "truncated"),
    "header longer than the file": (packed(HEADER, length=5000), "truncated"),
    "header length negative": (packed(HEADER, length=2**64 - 1), "at most 100000000"),
    "header not JSON": (packed("{" + ENTRY), "not valid JSON"),
    "header not UTF-8": (packed(b'{"\xff": 1}'), "UTF-8"),
    "header a list": (packed("[" + "1]"), "starts with"),
    "header after a space": (packed(" {}", b""), "starts with"),
    "header a list later": (packed("{} []", b""), "not valid JSON"),
    "nested objects": (packed('{"a":' * 50_000 + "1" + "}" * 50_000), "nested"),
    "nested lists": (packed('{"a":' + "[" * 90_000 + "]" * 90_000 + "}"), "nested"),
    "nested but short": (packed('{"a":' + "[" * 60 + "]" * 60 + " " * 3000 + "}"), "'a'"),
    "duplicate tensor": (packed("{" + ENTRY + "," + ENTRY + "," + REST + "}"), "'a' twice"),
    "duplicate field": (packed("{" + ENTRY.replace('"shape"', '"dtype"') + "," + REST + "}"), "'dtype' twice"),
    "entry a number": (packed({"a": 3}), "'a'"),
    "entry without shape": (packed({"a": {"dtype": "F32", "data_offsets": [0, 34]}}), "'a'"),
    "entry with more": (packed({"a": {**HEADER["a"], "more": 1}}), "'a'"),
    "dtype a number": (packed(with_entry("a", dtype=32)), "dtype"),
    "dtype endless": (packed(with_entry("a", dtype="F" * 5000)), "dtype"),
    "shape a string": (packed(with_entry("a", shape="23")), "shape"),
    "shape of floats": (packed(with_entry("a", shape=[2.0, 3])), "shape"),
    "shape of booleans": (packed(with_entry("a", shape=[True, 6])), "shape"),
    "shape of null": (packed(with_entry("a", shape=None)), "shape"),
    "shape negative": (packed(with_entry("a", shape=[-2, -3])), "shape"),
    "shape beyond 64 bits": (packed(with_entry("a", shape=[2**64 + 6])), "shape"),
    "shape of 4000 digits": (packed("{" + ENTRY.replace("[2, 3]", "[" + "9" * 4000 + "]") + "," + REST + "}"), "shape"),
    "shape of 9000 digits": (packed("{" + ENTRY.replace("[2, 3]", "[" + "9" * 9000 + "]") + "," + REST + "}"), "JSON"),
    "shape overflows": (packed(with_entry("a", shape=[2**32, 2**32])), "overflows"),
    "shape wraps to the right size": (packed(with_entry("a", shape=[2**62, 4, 6])), "overflows"),
    "shape overflows behind a zero": (packed(with_entry("a", shape=[0, 2**62, 2**62])), "overflows"),
    "too many dimensions": (packed(with_entry("a", shape=[1] * 200)), "shape"),
    "shape larger than offsets": (packed(with_entry("a", shape=[2, 4])), "needs 32 bytes"),
    "shape smaller than offsets": (packed(with_entry("a", shape=[2, 2])), "needs 16 bytes"),
    "offsets a number": (packed(with_entry("a", data_offsets=24)), "data_offsets"),
    "three offsets": (packed(with_entry("a", data_offsets=[0, 12, 24])), "data_offsets"),
    "offsets negative": (packed(with_entry("a", data_offsets=[-24, 0])), "data_offsets"),
    "offsets backwards": (packed(with_entry("a", data_offsets=[24, 0])), "data_offsets"),
    "offsets beyond the file": (packed(with_entry("b", data_offsets=[24, 2**40], shape=[2**39 - 12])), "data"),
    "overlapping": (overlapping(), "overlaps"),
    "gap": (gap(), "gap"),
    "gap at the start": (packed({"a": {**HEADER["a"], "data_offsets": [10, 34]}}), "gap"),
    "nothing but data": (packed("{}"), "34 bytes of data"),
    "metadata a list": (packed({"__metadata__": ["pt"], **HEADER}), "__metadata__"),
    "metadata of numbers": (packed({"__metadata__": {"step": 3}, **HEADER}), "__metadata__"),
    "name a lone surrogate": (
        packed('{"\\ud800": {"dtype": "U8", "shape": [34], "data_offsets": [0, 34]}}'),
        "Unicode",
    ),
    "name endless": (packed({"n" * 100_000: 3}), "'nnn"),
    "name with control characters": (packed({"\x1b[2J\n": 3}), "\\x1b"),
    "a pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c" + bytes(100), "at most"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_refused(case: str, tmp_path: Path) -> None:
    content, mention = CASES[case]
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    refused(lambda: load(path), str(path), mention)


@pytest.mark.parametrize("text", ["[],", "{},", "1,", '"",'])
def test_a_small_header_does_not_become_large_objects(text: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed('{"a": [' + text * 4_000_000 + "1]}"))
    refused(lambda: load(path), str(path), peak=40_000_000)  # the text itself is up to 12 MB, and held twice


@pytest.mark.parametrize("text", ["[],", "{},", "[[]],"])
def test_a_header_of_brackets_is_refused_before_it_is_parsed(text: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed('{"a": [' + text * 300_000 + "1]}"))
    refused(lambda: load(path), str(path), "nested", peak=4_000_000)


def test_text_in_names_and_metadata_is_no_structure(tmp_path: Path) -> None:
    pairs = json.dumps([[i, {"at": [i]}] for i in range(400)])
    header = {"__metadata__": {"buckets": pairs, 'quotes "[{\\': '"[[[\\"'}}
    header |= {f'm[{i}][{i}]{{"x\\"}}': {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(300)}
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed(header, bytes(300)))
    file = load(path)
    assert len(file) == 300 and file.names[299] == 'm[299][299]{"x\\"}'
    assert file.metadata == header["__metadata__"]


@pytest.mark.parametrize("text", ["[],", "{},", "[[]],"])
def test_brackets_behind_long_strings_are_still_counted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed('{"__metadata__": {"a": "\\"[", "b": "\\\\"}, "a": [' + text * 300_000 + "1]}"))
    refused(lambda: load(path), str(path), "nested", peak=8_000_000)


@needs_limits
def test_a_header_of_a_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "w.safetensors"
    with open(path, "wb") as file:
        file.write(packed("{", b"", length=1 << 30))
        file.truncate((1 << 30) + (1 << 20))  # sparse: the disk holds one block
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(lambda: load(path), str(path), "1073741824", peak=100_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_missing_file(tmp_path: Path) -> None:
    refused(lambda: load(tmp_path / "none.safetensors"), "none.safetensors", "does not exist")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    refused(lambda: load(tmp_path), str(tmp_path), "folder")


@needs_fifos
def test_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    refused(lambda: load(tmp_path / "pipe.safetensors"), "pipe.safetensors", "not a regular file")


@pytest.mark.parametrize("device", [os.devnull, "/dev/zero"] if os.name == "posix" else [os.devnull])
def test_device_is_not_read(device: str) -> None:
    refused(lambda: load(Path(device)), device, "not a regular file")


def test_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed(HEADER))

    def forbidden(*_: object) -> int:  # chmod would not stop root
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    refused(lambda: load(path), str(path), "this user may not read it")


def test_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pio.loading import safetensors

    path = tmp_path / "w.safetensors"
    path.write_bytes(packed(HEADER))

    def broken(*_: object) -> object:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(safetensors, "parse_header", broken)
    refused(lambda: load(path), str(path), "Input/output error")


@pytest.mark.parametrize("size", [50, 9000], ids=["shrinks", "grows"])
def test_file_that_changes_while_it_is_opened(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pio.loading import safetensors

    path = tmp_path / "w.safetensors"
    path.write_bytes(packed(HEADER))
    parse = safetensors.parse_header

    def change_first(raw: bytes, data_bytes: int, where: str) -> object:
        os.truncate(path, size)
        return parse(raw, data_bytes, where)

    monkeypatch.setattr(safetensors, "parse_header", change_first)
    refused(lambda: load(path), str(path), f"to {size} bytes")


def test_unknown_type_fails_only_when_taken(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed(with_entry("a", dtype="F7_NEW")))
    file = load(path)
    assert file.tensor("b").shape == (5,)
    refused(lambda: file.tensor("a"), str(path), "'a'", "F7_NEW")


def test_known_but_unused_type_is_still_measured(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed(with_entry("a", dtype="F8_E4M3")))
    refused(lambda: load(path), "F8_E4M3", "needs 6 bytes")
