"""What is put into a store is found in the next one, or not at all: whatever happens to its files in between."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stores import ITEM, LIMIT, ROOT, WAIT, add, data, files, flip, get, holds, key, make, put, run

from pio.errors import ConfigError, OutOfMemoryError
from pio.memory.budget import MemoryBudget
from pio.store import disk_store
from pio.store.disk_store import DiskStore, buffer_bytes
from pio.store.folder import SegmentFolder, prepare
from pio.store.reader import SegmentReader
from pio.store.segment import MAX_ITEMS, Item, make_header
from pio.system import HERE


def test_what_was_put_is_there_at_once_and_afterwards(folder: Path) -> None:
    store = make(folder)
    assert get(store, 0) is None
    put(store, 0, 1, 2)
    put(store, 3)
    assert holds(store, 0, 1, 2, 3) and get(store, 4) is None
    assert (store.num_segments, store.disk_bytes) == (2, sum(file.stat().st_size for file in files(folder)))
    store.close(WAIT)
    again = make(folder)
    assert holds(again, 0, 1, 2, 3) and again.find("snapshot", key(1)) is None
    assert (again.num_segments, again.disk_bytes, again.failures) == (2, store.disk_bytes, 0)
    assert not list(folder.glob("*.tmp"))
    again.close(WAIT)


@pytest.mark.parametrize("refused", [False, True])
def test_many_are_read_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    """Those before the first that is damaged are there, whoever has read which."""
    store = make(folder)
    for number in range(9):
        put(store, number)

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    if refused:
        monkeypatch.setattr("pio.store.reader.start", refuse)
    for damaged in (None, 8, 5, 4, 0):
        if damaged is not None:
            place = store.find("block", key(damaged))
            assert place is not None
            flip(-1)(folder / place.segment.name)
        targets = [bytearray(ITEM) for _ in range(9)]
        places = [store.find("block", key(number)) for number in range(9)]
        there = [i for i, place in enumerate(places) if place is not None]
        wanted = [(place, [memoryview(targets[i])]) for i, place in enumerate(places) if place is not None]
        count = store.read(wanted)
        assert count == (len(wanted) if damaged is None else there.index(damaged))
        assert all(targets[i] == data(i) for i in there[:count])
    assert store.read([]) == 0
    names = [thread.name for thread in threading.enumerate()]
    assert ("pio-store-reader" in names) is not refused
    store.close(WAIT)
    assert "pio-store-reader" not in [thread.name for thread in threading.enumerate()]


def test_nothing_is_readable_to_others(folder: Path) -> None:
    store = make(folder)
    put(store, 0)
    store.close(WAIT)
    if os.name == "posix":
        assert [path.stat().st_mode & 0o777 for path in (folder, *files(folder))] == [0o700, 0o600]


def test_the_folder_is_walked_before_and_behind_each_segment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, walks, before = make(folder), list[int](), os.scandir

    def walk(path: Any) -> Any:
        walks.append(0)
        return before(path)

    monkeypatch.setattr(os, "scandir", walk)
    for number in range(3):
        put(store, number)
    assert len(walks) == 6
    store.close(WAIT)


def test_how_often_the_folder_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this store has written or removed is known without that, and what others did is found a second later."""
    now, lists, before = [100.0], list[int](), os.listdir
    monkeypatch.setattr(disk_store, "monotonic", lambda: now[0])
    monkeypatch.setattr(disk_store, "LOOK", 1.0)
    limit = 6 * (ITEM + 1000) + (1 << 16)
    store, other = make(folder, limit=limit), make(folder)

    def listing(path: Any) -> Any:
        lists.append(0)
        return before(path)

    monkeypatch.setattr(os, "listdir", listing)
    for number in range(9):
        put(store, number, chain=False)
        store.look()
        assert holds(store, number)
    assert len(lists) == 1
    put(other, 100)
    store.look()
    assert get(store, 100) is None and len(lists) == 1
    now[0] += 1.0
    for _ in range(3):
        store.look()
        assert holds(store, 100) and len(lists) == 2, "nothing has changed since"
    most = limit // (ITEM + 400)
    for number in range(9, 9 + most):
        put(store, number, chain=False)
    assert store.find("block", key(0)) is None and len(lists) == 2, "it had to make room"
    for each in (store, other):
        each.close(WAIT)


def test_who_is_woken_may_change(folder: Path) -> None:
    store, woken = make(folder), list[int]()
    for number in range(2):
        store.wake = partial(woken.append, number)
        put(store, number)
    store.close(WAIT)
    assert woken == [0, 1]


def test_one_buffer_of_large_segments(folder: Path) -> None:
    largest = 4 * ITEM + 1
    store = DiskStore(folder, ROOT, LIMIT, largest)
    assert store.nbytes == buffer_bytes(largest) == largest and store.segment_bytes == 4 * ITEM
    buffer = store.take_buffer()
    assert buffer is not None and store.take_buffer() is None
    assert buffer.has_room(largest, MAX_ITEMS) and not buffer.has_room(largest + 1)
    assert not buffer.has_room(0, MAX_ITEMS + 1)
    store.put_buffer(buffer)
    store.close(WAIT)


def test_two_buffers_and_no_more(folder: Path) -> None:
    budget = MemoryBudget(buffer_bytes(ITEM))
    store = make(folder, budget=budget)
    assert (budget.available, store.nbytes) == (0, 2 * 4 * ITEM)
    first, second = store.take_buffer(), store.take_buffer()
    assert first is not None and second is not None and store.take_buffer() is None
    for number in range(4):
        assert first.has_room(ITEM)
        add(first, Item("block", key(number)), data(number))
    assert not first.has_room(ITEM)
    store.put_buffer(second)
    assert store.take_buffer() is second, "it was empty, and nothing is written"
    store.put_buffer(first)
    assert store.expects("block", key(3)) and not store.expects("block", key(4))
    assert store.wait(WAIT) and store.take_buffer() is first and holds(store, 0, 1, 2, 3)
    store.close(WAIT)
    with pytest.raises(OutOfMemoryError, match="a buffer of prefix_cache_path"):
        make(folder, budget=MemoryBudget(ITEM))


def test_a_thread_is_there_only_while_something_is_written(folder: Path) -> None:
    def threads() -> int:
        return sum(thread.name == "pio-store" for thread in threading.enumerate())

    store = make(folder)
    assert threads() == 0
    woken = threading.Event()
    store.wake = woken.set
    put(store, 0)
    assert woken.wait(WAIT) and threads() == 1
    store.close(WAIT)
    store.close(WAIT)
    assert threads() == 0 and holds(store, 0) and store.take_buffer() is None


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 5000)


def of_another_root(file: Path) -> None:
    file.write_bytes(make_header(b"x" * 32, [(Item("block", key(0)), ITEM, 0)]) + data(0))


def foreign(file: Path) -> None:
    file.write_bytes(b"not at all what its name says\n" * 1000)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "its header is damaged, or it was cut short"),
        (lambda file: os.truncate(file, 5), "it does not begin as one"),
        (lambda file: os.truncate(file, 100), "it was cut short"),
        (flip(40), "its header is damaged|no segment of a prefix cache of this version"),
        (flip(-5000), "its data are damaged"),
        (of_another_root, "it is of another model, or of a cache of another type"),
        (foreign, "it does not begin as one"),
    ],
    ids=["cut", "cut in its first bytes", "cut in its header", "header", "data", "another model", "foreign"],
)
def test_what_is_damaged_is_not_found_and_said_once(
    folder: Path, said: Callable[[], list[str]], damage: Callable[[Path], None], reason: str
) -> None:
    store = make(folder)
    put(store, 0, 1, 2)
    put(store, 3)
    store.close(WAIT)
    file = max(files(folder), key=lambda file: file.stat().st_size)
    damage(file)
    again = make(folder)
    found = [get(again, number) for number in range(4)]
    assert found[3] == data(3)
    assert all(held in (None, data(number)) for number, held in enumerate(found)) and None in found[:3]
    assert [get(again, number) for number in range(3)] == [None] * 3
    lines = said()
    assert len(lines) == 1 and str(file) in lines[0] and "computed again" in lines[0]
    assert re.search(reason, lines[0])
    assert files(folder) == [path for path in files(folder) if path != file], "it is not there to be met again"
    again.close(WAIT)
    assert holds(make(folder), 3) and said() == []


def test_data_that_are_damaged_while_the_store_is_open(folder: Path, said: Callable[[], list[str]]) -> None:
    store = make(folder)
    put(store, 0, 1, 2)
    flip(-10)(files(folder)[0])
    assert holds(store, 0, 1) and get(store, 2) is None and get(store, 0) is None
    assert len(said()) == 1
    put(store, 0, 1, 2)
    assert holds(store, 0, 1, 2)
    store.close(WAIT)


def test_files_of_others_are_left_alone(folder: Path, said: Callable[[], list[str]]) -> None:
    names = ["model.safetensors", "notes.txt", "0123456789abcdef-0123.safetensors", "config.json"]
    for name in names:
        (folder / name).write_bytes(b"mine" * 100_000)
    store = make(folder, limit=LIMIT)
    for number in range(100):
        put(store, number, chain=False)
    assert {name for name in names if (folder / name).read_bytes() == b"mine" * 100_000} == {*names}
    assert (store.num_segments, said()) == (100, [])
    store.close(WAIT)


def test_models_lie_side_by_side_and_find_only_their_own(folder: Path, said: Callable[[], list[str]]) -> None:
    one, other = make(folder), make(folder, b"y" * 32)
    put(one, 0, 1)
    put(other, 5)
    one.look()
    other.look()
    assert holds(one, 0, 1) and get(one, 5) is None and holds(other, 5) and get(other, 0) is None
    assert other.num_segments == 2 and said() == []
    one.close(WAIT)
    other.close(WAIT)


def test_stores_of_two_processes_find_what_the_other_has_written(folder: Path) -> None:
    one, other = make(folder), make(folder)
    put(one, 0, 1)
    assert get(other, 0) is None
    other.look()
    assert holds(other, 0, 1)
    put(other, 2)
    one.look()
    assert holds(one, 0, 1, 2)
    for file in files(folder):
        file.unlink()
    assert (get(one, 0), get(one, 1), get(one, 2)) == (None, None, None)
    other.look()
    assert other.find("block", key(0)) is None
    put(one, 0, 1)
    other.look()
    assert holds(other, 0, 1)
    one.close(WAIT)
    other.close(WAIT)


def test_two_that_write_at_the_same_time_keep_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has seen the room for one more segment, and both have taken it."""
    limit, write = 6 * (ITEM + 1000) + (1 << 16), SegmentFolder.write
    store, other, most = make(folder, limit=limit), make(folder, limit=limit), 0
    while sum(file.stat().st_size for file in files(folder)) + 2 * (ITEM + 1000) <= limit:
        put(store, most, chain=False)
        most += 1

    def at_the_same_time(self: SegmentFolder, *segment: Any) -> None:
        monkeypatch.setattr(SegmentFolder, "write", write)
        put(other, most + 1, chain=False)
        write(self, *segment)

    monkeypatch.setattr(SegmentFolder, "write", at_the_same_time)
    put(store, most, chain=False)
    assert sum(file.stat().st_size for file in files(folder)) <= limit
    assert (store.num_segments, store.disk_bytes) == (len(files(folder)), sum(f.stat().st_size for f in files(folder)))
    assert get(store, 0) is None and holds(store, most) and holds(make(folder), most - 1, most, most + 1)
    store.close(WAIT)
    other.close(WAIT)


def test_what_another_process_removes_is_no_fault(folder: Path, said: Callable[[], list[str]]) -> None:
    store = make(folder)
    put(store, 0, 1, 2)
    files(folder)[0].unlink()
    assert get(store, 0) is None and store.find("block", key(2)) is None
    assert said() == []
    store.close(WAIT)


def test_a_folder_that_vanishes(folder: Path, said: Callable[[], list[str]]) -> None:
    store = make(folder)
    put(store, 0)
    for file in files(folder):
        file.unlink()
    folder.rmdir()
    store.look()
    assert get(store, 0) is None
    put(store, 1)
    lines = said()
    assert len(lines) == 1 and "nothing more is kept in" in lines[0] and str(folder) in lines[0]
    assert (store.failures, store.keeps, store.take_buffer()) == (1, False, None)
    assert get(store, 1) is None and said() == []
    store.close(WAIT)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read(folder: Path, said: Callable[[], list[str]]) -> None:
    store = make(folder)
    put(store, 0, 1)
    store.close(WAIT)
    folder.chmod(0o500)
    try:
        reader = make(folder)
        assert holds(reader, 0, 1) and reader.take_buffer() is None and not reader.keeps
        assert ["cannot be written" in line for line in said()] == [True]
        reader.close(WAIT)
    finally:
        folder.chmod(0o700)


def test_a_folder_that_says_it_cannot_be_written(
    folder: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for whoever runs the tests."""
    store = make(folder)
    put(store, 0, 1)
    store.close(WAIT)
    monkeypatch.setattr(type(HERE), "may_write", lambda *_: False)
    reader = make(folder)
    assert holds(reader, 0, 1) and reader.take_buffer() is None and not reader.keeps and reader.nbytes == 0
    assert ["cannot be written" in line for line in said()] == [True]
    assert (reader.num_segments, reader.disk_bytes) == (1, files(folder)[0].stat().st_size)
    reader.close(WAIT)


@pytest.mark.skipif(os.name != "posix", reason="this system limits no files")
def test_a_full_disk(folder: Path) -> None:
    """A process whose files may not grow meets what a full disk is: an error in the middle of writing."""
    ran = run(f"""
    import logging, resource
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
    store = here.make(Path({str(folder)!r}))
    here.put(store, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * here.ITEM, 2 * here.ITEM))
    here.put(store, 1, 2, 3)
    assert here.holds(store, 0) and here.get(store, 1) is None and store.take_buffer() is None
    assert (store.failures, store.num_segments) == (1, 1)
    store.close(here.WAIT)
    """)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("\n") == 1 and "nothing more is kept in" in ran.stdout and "File too large" in ran.stdout
    assert len(files(folder)) == 1 and not list(folder.glob("*.tmp")), "nothing half written is left"
    assert holds(make(folder), 0)


def test_a_process_that_is_killed_while_it_writes(folder: Path) -> None:
    """What it had written is there, the file that it was at is not, and is removed later."""
    ran = run(f"""
    from pio.store import folder as writing
    store = here.make(Path({str(folder)!r}))
    here.put(store, 0, 1)
    writing.HERE.replace = lambda *_: os._exit(9)
    here.put(store, 2)
    """)
    assert ran.returncode == 9
    left = list(folder.glob("*.tmp"))
    assert len(left) == 1 and len(files(folder)) == 1
    store = make(folder)
    assert holds(store, 0, 1) and get(store, 2) is None and left[0].exists(), "its process may still write"
    os.utime(left[0], (1e9, 1e9))
    put(store, 2)
    assert holds(store, 0, 1, 2) and not left[0].exists()
    store.close(WAIT)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not say which files are open")
def test_a_folder_with_the_name_of_a_segment(folder: Path) -> None:
    """It is refused once, and what was opened to find that out is closed; no other thread opens files meanwhile."""
    ran = run(f"""
    folder = Path({str(folder)!r})
    store = here.make(folder)
    here.put(store, 0)
    place = store.find("block", here.key(0))
    names = [store._folder.new_name() for _ in range(9)]
    def opened():
        return len(os.listdir("/proc/self/fd"))
    assert here.holds(store, 0)
    before = opened()
    for name in names:
        (folder / name).mkdir()
    store.look()
    assert opened() == before, "listed"
    os.rename(folder / place.segment.name, folder / "elsewhere")
    (folder / place.segment.name).mkdir()
    assert here.get(store, 0) is None
    assert opened() == before, "read"
    store.close(here.WAIT)
    print(sum((folder / name).is_dir() for name in names))
    """)
    assert (ran.returncode, ran.stdout) == (0, "9\n"), ran.stderr
    assert ran.stderr.count("cannot be read") == 10


def test_a_system_that_refuses_a_thread(
    folder: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    store = make(folder)
    monkeypatch.setattr("pio.store.writer.start", refuse)
    buffer = store.take_buffer()
    assert buffer is not None
    add(buffer, Item("block", key(0)), data(0))
    store.put_buffer(buffer)
    assert not store.keeps and store.take_buffer() is None
    assert ["refuses a thread" in line for line in said()] == [True]
    store.close(WAIT)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "below", "nul\0"):
        with pytest.raises(ConfigError, match=r"prefix_cache_path=.* cannot be used: .*give a folder of your own"):
            prepare(path)
    assert prepare(tmp_path / "a" / "b") == prepare(tmp_path / "a" / "b")


@pytest.mark.skipif(os.name != "posix", reason="other rights")
def test_folders_that_others_may_write_to_are_not_trusted(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "kept")
    folder.chmod(0o777)
    with pytest.raises(
        ConfigError, match=r"prefix_cache_path=.* cannot be trusted: .* can be written by others; chmod"
    ):
        prepare(folder)


def test_a_tilde_is_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    assert prepare("~/kept") == tmp_path / "kept"


def test_an_error_between_two_threads_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next items would be told whole or damaged as those were."""
    store = make(folder)
    put(store, 0, 1, 2, 3)
    before, calls = SegmentReader._read, list[int]()

    def failing(self: SegmentReader, *wanted: Any) -> Any:
        calls.append(0)
        if threading.current_thread() is threading.main_thread() and len(calls) < 3:
            raise MemoryError
        return before(self, *wanted)

    monkeypatch.setattr(SegmentReader, "_read", failing)

    def wanted(*numbers: int) -> list[Any]:
        places = [store.find("block", key(number)) for number in numbers]
        return [(place, [memoryview(bytearray(100)), memoryview(bytearray(ITEM - 100))]) for place in places]

    with pytest.raises(MemoryError):
        store.read(wanted(0, 1))
    calls.extend([0] * 9)
    flip(-1)(files(folder)[0])
    assert store.read(wanted(2, 3)) == 1
    store.close(WAIT)


def test_too_many_open_files_say_nothing_of_a_segment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(folder)
    put(store, 0)

    def refused(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(store._folder, "read", refused)
        assert get(store, 0) is None
        patch.setattr(SegmentFolder, "items", refused)
        other = make(folder)
        assert not holds(other, 0)
    assert get(store, 0) == data(0)
    other.look()
    assert holds(other, 0)
    for each in (store, other):
        each.close(WAIT)
